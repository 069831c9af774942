-- Deletes ids of a log that no record can repeat any longer, the oldest first, some at a time: those that both the window of
-- stream time ($6) and that of offsets ($7) have left behind, for the next record and for each open dead letter, which a
-- retry judges as of its own offset. Of a log that has ended ($8) only the dead letters count.
WITH open AS (
    SELECT min(record_offset) AS record_offset, min(coalesce(stream_time, 'epoch')) AS stream_time
    FROM sightline.dead_letters
    WHERE domain = $1 AND version = $2 AND log_id = $3 AND state IN ('parked', 'retrying')
), until AS (
    SELECT least(open.record_offset, CASE WHEN NOT $8 THEN $4::bigint END) - $7::bigint AS record_offset,
           least(open.stream_time, CASE WHEN NOT $8 THEN $5::timestamptz END) - $6::interval AS applied_time
    FROM open
)
DELETE FROM seen_events
WHERE ctid = ANY (ARRAY(
    SELECT ctid
    FROM seen_events
    WHERE log_id = $3
      AND applied_time <= coalesce((SELECT applied_time FROM until), 'infinity')
      AND record_offset <= coalesce((SELECT record_offset FROM until), 9223372036854775807)
    ORDER BY applied_time
    LIMIT 10000))
