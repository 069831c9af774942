-- Deletes ids that stream time ($4) has left behind by the dedupe window ($5), the oldest first, some at a time.
-- A retried dead letter is judged by the stream time behind it, so ids from a window before the first open dead letter to a
-- window after the last are kept.
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
