-- Which contacts are one person, and why an identity is a contact's.

-- head_id: who speaks for the person, where several contacts are one; NULL for a
-- contact that is alone. version: how often it was merged or parted.
ALTER TABLE contacts ADD COLUMN head_id TEXT;
ALTER TABLE contacts ADD COLUMN version BIGINT NOT NULL DEFAULT 0;
CREATE INDEX contacts_by_head ON contacts (head_id) WHERE head_id IS NOT NULL;
CREATE INDEX contacts_by_meeting ON contacts (created_at, id);

-- proof: JSON; NULL for identities from before this migration.
ALTER TABLE identities ADD COLUMN proof TEXT;
CREATE INDEX identities_by_contact ON identities (contact_id);
CREATE INDEX identities_by_address ON identities (address);

-- Addresses that contacts say are their own.
CREATE TABLE claims (
    contact_id TEXT NOT NULL,
    scheme TEXT NOT NULL,
    address TEXT NOT NULL CHECK (length(address) <= 500),
    name TEXT,
    message_id TEXT NOT NULL,
    claimed_at BIGINT NOT NULL,
    PRIMARY KEY (contact_id, scheme, address)
);
CREATE INDEX claims_by_address ON claims (address);

-- One row for each two contacts that ever were one person by each other.
-- proof, undone: JSON.
CREATE TABLE contact_merges (
    id TEXT NOT NULL PRIMARY KEY,
    from_id TEXT NOT NULL,
    into_id TEXT NOT NULL,
    proof TEXT NOT NULL,
    merged_at BIGINT NOT NULL,
    undone_at BIGINT,
    undone TEXT,
    version BIGINT NOT NULL
);
CREATE INDEX contact_merges_by_from ON contact_merges (from_id);
CREATE INDEX contact_merges_by_into ON contact_merges (into_id);

CREATE INDEX conversations_by_contact ON conversations (contact_id, last_message_at);
