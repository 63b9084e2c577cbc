-- A live view asks for what comes after a number; without this each question sorts
-- the whole conversation.
CREATE INDEX messages_by_sequence ON messages (conversation_id, sequence) WHERE sequence IS NOT NULL;
