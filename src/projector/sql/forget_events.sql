-- Rows of ids that log time has forgotten, some at a time, the oldest first: the index gives them in that order.
DELETE FROM seen_events
WHERE ctid = ANY (ARRAY(SELECT ctid FROM seen_events WHERE log_id = $1 AND log_time <= $2 ORDER BY log_time LIMIT 10000))
