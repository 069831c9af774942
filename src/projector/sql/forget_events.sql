-- Rows of ids that log time has forgotten, some at a time.
DELETE FROM seen_events
WHERE ctid = ANY (ARRAY(SELECT ctid FROM seen_events WHERE log_time <= $2 AND log_id = $1 LIMIT 10000))
