-- The desk's tables, for SQLite and PostgreSQL alike: TEXT, BIGINT and BYTEA
-- only, moments in milliseconds since 1970 (UTC), yes and no as 1 and 0.
-- Migrations only add.

-- How far each partition of the log has been applied.
CREATE TABLE partitions (
    topic TEXT NOT NULL,
    partition BIGINT NOT NULL,
    next_offset BIGINT NOT NULL,
    PRIMARY KEY (topic, partition)
);

CREATE TABLE contacts (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT,
    scheme TEXT NOT NULL,
    address TEXT NOT NULL,
    verified BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

-- The length is what an index entry of PostgreSQL can hold.
CREATE TABLE identities (
    scheme TEXT NOT NULL,
    address TEXT NOT NULL CHECK (length(address) <= 500),
    verified BIGINT NOT NULL,
    contact_id TEXT NOT NULL,
    PRIMARY KEY (scheme, address, verified)
);

-- participants: JSON list of identities.
CREATE TABLE conversations (
    id TEXT NOT NULL PRIMARY KEY,
    account TEXT NOT NULL,
    channel TEXT NOT NULL,
    contact_id TEXT NOT NULL,
    subject TEXT,
    thread TEXT NOT NULL,
    thread_name TEXT CHECK (length(thread_name) <= 500),
    ticket_id TEXT,
    participants TEXT NOT NULL,
    suggested TEXT,
    epoch BIGINT NOT NULL,
    last_sequence BIGINT NOT NULL,
    last_message_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL
);
CREATE UNIQUE INDEX conversations_by_thread_name ON conversations (account, thread_name)
    WHERE thread_name IS NOT NULL;

-- content: JSON of the message as it was written. external_ids: JSON list of all
-- that it is called by, those that a provider gave it later too.
-- An erased message keeps its row, as a tombstone. raw comes last, so that
-- SQLite reads past it only when asked for it.
CREATE TABLE messages (
    id TEXT NOT NULL PRIMARY KEY,
    conversation_id TEXT NOT NULL,
    account TEXT NOT NULL,
    direction TEXT NOT NULL,
    author TEXT NOT NULL,
    occurred_at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    provider_sequence BIGINT,
    sequence BIGINT,
    delivery TEXT,
    delivery_error TEXT,
    request_sha256 TEXT,
    erased_at BIGINT,
    external_ids TEXT NOT NULL,
    content TEXT NOT NULL,
    raw_request TEXT,
    raw BYTEA
);
CREATE INDEX messages_by_conversation ON messages (conversation_id, occurred_at);

-- Accounts where a message arrived once more.
CREATE TABLE message_accounts (
    message_id TEXT NOT NULL,
    account TEXT NOT NULL,
    PRIMARY KEY (message_id, account)
);

CREATE TABLE external_ids (
    external_id TEXT NOT NULL,
    message_id TEXT NOT NULL,
    PRIMARY KEY (external_id, message_id)
);

-- snapshot: JSON of the ticket. The other columns are what queries ask for.
-- next_clock_at: the earliest moment at which one of its clocks wants to be heard.
CREATE TABLE tickets (
    id TEXT NOT NULL PRIMARY KEY,
    number TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    contact_id TEXT NOT NULL,
    state TEXT NOT NULL,
    category TEXT NOT NULL,
    is_open BIGINT NOT NULL,
    queue TEXT NOT NULL,
    priority BIGINT NOT NULL,
    assignee TEXT,
    needs_attention BIGINT NOT NULL,
    opened_at BIGINT NOT NULL,
    next_clock_at BIGINT,
    version BIGINT NOT NULL,
    snapshot TEXT NOT NULL
);
CREATE INDEX tickets_by_opening ON tickets (opened_at, id);
CREATE INDEX tickets_by_contact ON tickets (contact_id, is_open, opened_at);
CREATE INDEX tickets_by_next_clock ON tickets (next_clock_at) WHERE next_clock_at IS NOT NULL;

-- message_id: the message that the event is about, if it is about one.
-- conversation_id: the conversation that came to the ticket by it, if one did.
CREATE TABLE ticket_events (
    ticket_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    message_id TEXT,
    conversation_id TEXT,
    content TEXT NOT NULL,
    PRIMARY KEY (ticket_id, version)
);

CREATE TABLE traces (
    message_id TEXT NOT NULL PRIMARY KEY,
    content TEXT NOT NULL
);

-- Messages on their way out: queued or sending. Settled ones leave; their
-- message says how it ended. fence: of the lease under which it was claimed.
CREATE TABLE outbox (
    message_id TEXT NOT NULL PRIMARY KEY,
    conversation_id TEXT NOT NULL,
    account TEXT NOT NULL,
    state TEXT NOT NULL,
    due_at BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    occurred_at BIGINT NOT NULL,
    received_at BIGINT NOT NULL
);
CREATE INDEX outbox_by_account ON outbox (account, state, due_at);
CREATE INDEX outbox_by_conversation ON outbox (conversation_id);

-- The lowest versions go first, so each subject's go in order.
CREATE TABLE announcements (
    version BIGINT NOT NULL,
    subject TEXT NOT NULL,
    kind TEXT NOT NULL,
    occurred_at BIGINT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (version, subject)
);

CREATE TABLE parked (
    id TEXT NOT NULL PRIMARY KEY,
    account TEXT NOT NULL,
    channel TEXT NOT NULL,
    quarantined BIGINT NOT NULL,
    reason TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    replayed_at BIGINT,
    raw_request TEXT NOT NULL,
    raw BYTEA
);
CREATE INDEX parked_by_arrival ON parked (received_at, id);
CREATE INDEX parked_waiting ON parked (quarantined, account) WHERE replayed_at IS NULL;

-- Kept after the conversation's end: the budget of automatic replies.
CREATE TABLE automatic_replies (
    conversation_id TEXT NOT NULL,
    message_id TEXT NOT NULL,
    scheme TEXT NOT NULL,
    address TEXT NOT NULL CHECK (length(address) <= 500),
    sent_at BIGINT NOT NULL,
    PRIMARY KEY (conversation_id, message_id)
);
CREATE INDEX automatic_replies_by_address ON automatic_replies (address, sent_at);

-- owner is empty after a release.
CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    fence BIGINT NOT NULL,
    beat BIGINT NOT NULL
);

CREATE TABLE accounts (
    name TEXT NOT NULL PRIMARY KEY,
    plan TEXT NOT NULL,
    declaration TEXT NOT NULL,
    gone_at BIGINT,
    last_seen_at BIGINT,
    error TEXT,
    error_at BIGINT,
    waiting BIGINT NOT NULL
);

CREATE TABLE cursors (
    account TEXT NOT NULL PRIMARY KEY,
    position TEXT NOT NULL
);

CREATE TABLE people (
    name TEXT NOT NULL PRIMARY KEY,
    created_at BIGINT NOT NULL
);

CREATE TABLE tokens (
    sha256 TEXT NOT NULL PRIMARY KEY,
    person TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- Every version of what settings declare; is_current is 0 for the older ones.
CREATE TABLE definitions (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    is_current BIGINT NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (kind, name, version)
);

-- 'book' counts the changes of definitions and accounts.
CREATE TABLE counters (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('book', 0);

-- The next ticket number of each prefix.
CREATE TABLE numbers (
    prefix TEXT NOT NULL PRIMARY KEY,
    next BIGINT NOT NULL
);
