-- Files: those that are still to be fetched, and who refers to which blob.

-- Attachments whose bytes are still to be fetched, by the SHA-256 of their source.
-- Whoever claims a row moves its due_at on: it falls due again if he dies.
CREATE TABLE media (
    message_id TEXT NOT NULL,
    source_sha256 TEXT NOT NULL,
    account TEXT NOT NULL,
    due_at BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    PRIMARY KEY (message_id, source_sha256)
);
CREATE INDEX media_by_account ON media (account, due_at);

-- used_by: the id of a message or of a parked input.
CREATE TABLE blob_uses (
    sha256 TEXT NOT NULL,
    used_by TEXT NOT NULL,
    PRIMARY KEY (sha256, used_by)
);
CREATE INDEX blob_uses_by_user ON blob_uses (used_by);

-- Blobs that are removed when they are due, unless something uses them then.
CREATE TABLE blob_removals (
    sha256 TEXT NOT NULL PRIMARY KEY,
    noted_at BIGINT NOT NULL,
    due_at BIGINT NOT NULL
);

CREATE INDEX ticket_events_by_conversation ON ticket_events (conversation_id)
    WHERE conversation_id IS NOT NULL;
