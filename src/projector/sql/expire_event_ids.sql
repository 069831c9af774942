-- Deletes some runs ($5) of ids that no record can repeat any longer: those that both the window of stream time ($3) and that of
-- offsets ($4) have left behind, for the next record and for each open dead letter, which a retry judges as of its own offset.
-- Of a log that has ended only the dead letters count. Returns how many runs were deleted.
WITH until AS (
    SELECT p.log_id,
           coalesce(least(d.record_offset, CASE WHEN p.ended_at IS NULL THEN p.next_offset END) - $4::bigint,
                    9223372036854775807) AS record_offset,
           coalesce(least(d.stream_time, CASE WHEN p.ended_at IS NULL THEN p.stream_time END) - $3::interval, 'infinity') AS applied_time
    FROM sightline.progress p
    CROSS JOIN LATERAL (
        SELECT min(record_offset) AS record_offset, min(coalesce(stream_time, 'epoch')) AS stream_time
        FROM sightline.dead_letters
        WHERE domain = $1 AND version = $2 AND log_id = p.log_id AND state IN ('parked', 'retrying')
    ) d
    WHERE p.domain = $1 AND p.version = $2
), expired AS (
    SELECT r.log_id, r.run
    FROM event_id_runs r
    JOIN until u USING (log_id)
    WHERE r.last_time <= u.applied_time AND r.last_offset <= u.record_offset
    LIMIT $5::bigint
    FOR UPDATE OF r SKIP LOCKED
), runs AS (
    DELETE FROM event_id_runs r
    USING expired e
    WHERE r.log_id = e.log_id AND r.run = e.run
    RETURNING r.log_id, r.run
), blocks AS (
    DELETE FROM event_id_blocks b
    USING runs r
    WHERE b.log_id = r.log_id AND b.run = r.run
)
SELECT count(*) AS "count!" FROM runs
