-- What happened to messages after they were written (edited, deleted, reacted to,
-- a call that went on, files that came later), one row a change, for ever: the
-- message's own content stays what was written first. message_id: NULL while the
-- message has not come. content: JSON of the change.
CREATE TABLE message_changes (
    id TEXT NOT NULL PRIMARY KEY,
    account TEXT NOT NULL,
    external_id TEXT NOT NULL CHECK (length(external_id) <= 1000),
    message_id TEXT,
    occurred_at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    provider_sequence BIGINT,
    content TEXT NOT NULL
);
CREATE INDEX message_changes_by_message ON message_changes (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX message_changes_waiting ON message_changes (external_id) WHERE message_id IS NULL;

-- JSON of how the message stands after its changes; NULL if there was none.
ALTER TABLE messages ADD COLUMN changed TEXT;

-- JSON of the contact's latest word on whether we may write.
ALTER TABLE conversations ADD COLUMN consent TEXT;
