-- A page of the feed, and the positions of all logs, in one snapshot. Each log is read from its own
-- feed position ($1 to $3), at most a page of it. The page takes the first entry of each log, then
-- the second ones, and so on, so that a long log does not delay the others. One of the two branches
-- is run: which one depends on whether there is a user ($5). The feed positions are of a version of
-- the view ($8). If they don't mean the same in the live version, the reader has to read the feed
-- from the beginning ("resync").
WITH logs AS (
    SELECT v.version, p.log_id, p.next_offset AS position,
           coalesce(a.next_offset, 0) AS next_offset, coalesce(a.sequence, 0) AS sequence
    FROM order_live.view_version v
    JOIN sightline.progress p ON p.domain = 'order' AND p.version = v.version
    LEFT JOIN unnest($1::integer[], $2::bigint[], $3::bigint[]) AS a (log_id, next_offset, sequence) USING (log_id)
), page AS (
    SELECT c.*
    FROM logs l
    CROSS JOIN LATERAL (
        SELECT e.*, row_number() OVER (ORDER BY e.next_offset, e.sequence) AS rank
        FROM (
            (SELECT * FROM order_live.address_changes c
             WHERE $5::uuid IS NULL
               AND c.log_id = l.log_id AND (c.next_offset, c.sequence) > (l.next_offset, l.sequence)
               AND c.deletion_type IS NULL
               AND ($6::boolean IS NULL OR c.significant = $6) AND ($7::timestamptz IS NULL OR c.occurred_at >= $7)
             ORDER BY c.next_offset, c.sequence
             LIMIT $4)
            UNION ALL
            (SELECT * FROM order_live.address_changes c
             WHERE $5::uuid IS NOT NULL AND c.user_key = $5 AND c.user_id = $9
               AND c.log_id = l.log_id AND (c.next_offset, c.sequence) > (l.next_offset, l.sequence)
               AND c.deletion_type IS NULL
               AND ($6::boolean IS NULL OR c.significant = $6) AND ($7::timestamptz IS NULL OR c.occurred_at >= $7)
             ORDER BY c.next_offset, c.sequence
             LIMIT $4)
        ) e
    ) c
    ORDER BY c.rank, c.log_id
    LIMIT $4
), sized AS (
    SELECT *, sum(octet_length(change)) OVER (ORDER BY rank, log_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
    FROM page
), found AS (
    SELECT array_agg(log_id) AS log_ids, array_agg(next_offset) AS next_offsets, array_agg(sequence) AS sequences,
           array_agg(change) AS changes
    FROM (
        SELECT *
        FROM sized
        -- An answer holds 3 MiB. This much text is more than that.
        WHERE coalesce(bytes_before, 0) < 8 * 1024 * 1024
        ORDER BY rank, log_id
    ) s
)
SELECT coalesce((SELECT log_ids FROM found), '{}') AS "log_ids!", coalesce((SELECT next_offsets FROM found), '{}') AS "next_offsets!",
       coalesce((SELECT sequences FROM found), '{}') AS "sequences!", coalesce((SELECT changes FROM found)::text[], '{}') AS "changes!",
       (SELECT version FROM order_live.view_version) AS "version!",
       (SELECT ready FROM order_live.view_version) AS "ready!",
       EXISTS (SELECT FROM sightline.dead_letters d
               WHERE d.domain = 'order' AND d.version = (SELECT version FROM order_live.view_version)
                 AND d.key_hash = $5 AND d.state IN ('parked', 'retrying')) AS "lacks_dead_letters!",
       (SELECT sightline.must_resync('order', $8, version, $1, $2, $3) FROM order_live.view_version) AS "resync!",
       coalesce(array_agg(log_id), '{}') AS "logs!", coalesce(array_agg(position), '{}') AS "offsets!"
FROM logs
