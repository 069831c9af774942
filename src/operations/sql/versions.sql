-- The versions of the views of these domains ($1), with state and progress of each.
WITH owners AS MATERIALIZED (
    -- Once for all partitions, as in the lag.
    SELECT * FROM sightline.partition_owners WHERE domain = ANY ($1::text[])
)
SELECT v.domain, v.version, v.state, v.code_version, v.mixed_code, v.created_at, v.retired_at, v.accepts_loss,
       v.paused_at, v.paused_by, v.pause_reason,
       p.stalled_since, p.failure, coalesce(p.read, 0)::bigint AS "read!", p.done, p.whole, p.ends_are_fresh AS "ends_are_fresh!", p.rate, dead_letters.open AS "dead_letters!"
FROM sightline.views v
CROSS JOIN LATERAL (
    SELECT min(p.failure) AS failure,
           min(p.behind_since) FILTER (WHERE p.behind_since < now() - interval '1 day') AS stalled_since,
           sum(p.read) AS read,
           sum(p.next_offset - p.start_offset)::bigint AS done,
           -- A position beyond the log end offset was committed after that was read: the log ends
           -- at the position at the earliest. The sum is unknown (null) if the log end offset of
           -- any partition is.
           CASE WHEN count(e.log_id) = count(*) THEN sum(greatest(e.log_end_offset, p.next_offset) - p.start_offset) END::bigint AS whole,
           -- As fresh as a partition needs it that is not to be stalled.
           count(*) FILTER (WHERE e.read_at BETWEEN now() - interval '10 seconds' AND now() + interval '2 seconds') = count(*)
               AS ends_are_fresh,
           sum(o.rate) FILTER (WHERE o.seen_at BETWEEN now() - interval '10 seconds' AND now() + interval '2 seconds') AS rate
    FROM sightline.progress p
    LEFT JOIN sightline.log_offsets e USING (log_id)
    LEFT JOIN owners o USING (log_id, domain, version)
    WHERE p.domain = v.domain AND p.version = v.version AND p.ended_at IS NULL
) AS p
CROSS JOIN LATERAL (
    SELECT count(*) AS open
    FROM sightline.dead_letters d
    WHERE d.domain = v.domain AND d.version = v.version AND d.state IN ('parked', 'retrying')
) AS dead_letters
WHERE v.domain = ANY ($1::text[]) AND v.state <> 'dropped'
ORDER BY v.domain, v.state = 'live' DESC, v.version DESC
