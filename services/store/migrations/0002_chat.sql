-- Presence of chat visitors: when one of their sockets was last there, and when
-- the last one went. No row: nobody was ever seen.
CREATE TABLE visitors (
    conversation_id TEXT NOT NULL PRIMARY KEY,
    seen_at BIGINT NOT NULL,
    left_at BIGINT
);
