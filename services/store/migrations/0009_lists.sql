-- Lists of tickets, the newest first, that are narrowed: without these they read all
-- newer tickets that nobody has asked for.
CREATE INDEX tickets_by_kind ON tickets (kind, opened_at, id);
CREATE INDEX tickets_by_queue ON tickets (queue, opened_at, id);
CREATE INDEX tickets_by_assignee ON tickets (assignee, opened_at, id) WHERE assignee IS NOT NULL;
CREATE INDEX tickets_open ON tickets (opened_at, id) WHERE is_open = 1;
CREATE INDEX tickets_open_by_queue ON tickets (queue, opened_at, id) WHERE is_open = 1;
CREATE INDEX tickets_for_attention ON tickets (opened_at, id) WHERE needs_attention = 1;
