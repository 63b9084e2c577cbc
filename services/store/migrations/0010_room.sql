-- A contact's conversations by their beginnings, which never change: a conversation that
-- goes on leaves this index as it is.
CREATE INDEX conversations_by_beginning ON conversations (contact_id, created_at);
DROP INDEX conversations_by_contact;
