-- What people's requests were answered, by their Idempotency-Key: a repeat gets
-- the same answer. Kept for a week.
CREATE TABLE requests (
    person TEXT NOT NULL,
    idempotency_key TEXT NOT NULL CHECK (length(idempotency_key) <= 255),
    request_sha256 TEXT NOT NULL,
    answer TEXT NOT NULL,
    answered_at BIGINT NOT NULL,
    PRIMARY KEY (person, idempotency_key)
);
CREATE INDEX requests_by_answer ON requests (answered_at);
