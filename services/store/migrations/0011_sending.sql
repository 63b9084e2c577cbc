-- What is wrong with sending by the account: beside what is wrong with reading it,
-- for each is told by somebody else, and one that works says nothing of the other.
ALTER TABLE accounts ADD COLUMN sending_error TEXT;
ALTER TABLE accounts ADD COLUMN sending_error_at BIGINT;
-- Until now both stood in one place; a reader that still fails says so again.
UPDATE accounts SET sending_error = error, sending_error_at = error_at, error = NULL, error_at = NULL
WHERE error IS NOT NULL;
