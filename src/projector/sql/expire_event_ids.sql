-- Rows of ids that log time ($4) has forgotten, some at a time, the oldest first: the index gives them in that order.
-- A dead letter that is tried again is judged by the log's time of then, so what was not forgotten then, from a while
-- ($5) before the first of them to a while after the last, is kept.
WITH open AS (
    SELECT min(stream_time) - $5::interval AS since, max(stream_time) + $5 AS until
    FROM sightline.dead_letters
    WHERE domain = $1 AND version = $2 AND log_id = $3 AND state IN ('parked', 'retrying')
)
DELETE FROM seen_events
WHERE ctid = ANY (
    ARRAY(
        SELECT ctid FROM seen_events
        WHERE log_id = $3 AND stream_time <= least($4::timestamptz - $5, (SELECT since FROM open))
        ORDER BY stream_time
        LIMIT 10000)
    || ARRAY(
        SELECT ctid FROM seen_events
        WHERE log_id = $3 AND stream_time > (SELECT until FROM open) AND stream_time <= $4 - $5
        ORDER BY stream_time
        LIMIT 10000))
