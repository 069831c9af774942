-- Rows of ids that log time ($4) has forgotten, some at a time, the oldest first: the index gives them in that order.
-- A dead letter that is tried again is judged by the log's time of then, so what was not forgotten then is kept.
DELETE FROM seen_events
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM seen_events
    WHERE log_id = $3
      AND log_time <= least($4::timestamptz, (
              SELECT min(log_time) FROM sightline.dead_letters
              WHERE domain = $1 AND version = $2 AND log_id = $3 AND state IN ('parked', 'retrying'))) - $5::interval
    ORDER BY log_time
    LIMIT 10000))
