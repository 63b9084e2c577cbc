-- What is wrong with sending by the account: beside what is wrong with reading it,
-- for each is told by somebody else, and one that works says nothing of the other.
ALTER TABLE accounts ADD COLUMN sending_error TEXT;
ALTER TABLE accounts ADD COLUMN sending_error_at BIGINT;
