-- more: JSON list of the announcements of the same subject that were written
-- together with this one, in order.
ALTER TABLE announcements ADD COLUMN more TEXT;
