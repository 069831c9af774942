-- A page of the feed, and the positions of all logs, in one snapshot. Each log is read from its own
-- feed position ($1 to $3). The page takes the first entry of each log, then the second ones, and so
-- on, so that a long log does not delay the others. The feed positions are of a version of the view
-- ($8). If they don't mean the same in the live version, the reader has to read the feed from the
-- beginning ("resync"). Deletions of users are among them where that is asked ($11), and pass the filter of significance.
WITH RECURSIVE logs AS (
    SELECT p.log_id, p.next_offset AS position, coalesce(a.next_offset, 0) AS next_offset, coalesce(a.sequence, 0) AS sequence,
           ($4::bigint - 1) / count(*) OVER () + 1 AS share
    FROM order_live.view_version v
    JOIN sightline.progress p ON p.domain = 'order' AND p.version = v.version
    LEFT JOIN unnest($1::integer[], $2::bigint[], $3::bigint[]) AS a (log_id, next_offset, sequence) USING (log_id)
), walk AS (
    -- The logs are read in rounds until the page is full: in each round an equal share of the page from
    -- every log that may have more, so that hardly more rows are read than the page holds. The rows
    -- of rank 0 are where reading begins.
    SELECT log_id, next_offset, sequence, NULL::text AS change, NULL::text AS deletion_type, share, 0::bigint AS rank, 0::bigint AS read
    FROM logs
    UNION ALL
    SELECT c.log_id, c.next_offset, c.sequence, c.change, c.deletion_type, w.share, w.rank + c.rank, w.read + count(*) OVER ()
    FROM walk w
    CROSS JOIN LATERAL (
        SELECT e.*, row_number() OVER (ORDER BY e.next_offset, e.sequence) AS rank
        FROM (
            -- One of the branches is run: which one depends on whether there is a user ($5), and on the significance ($6).
            (SELECT c.log_id, c.next_offset, c.sequence, c.change::text, c.deletion_type FROM order_live.address_changes c
             WHERE $5::uuid IS NULL AND $6::boolean IS NOT TRUE
               AND c.log_id = w.log_id AND (c.next_offset, c.sequence) > (w.next_offset, w.sequence)
               AND CASE WHEN c.deletion_type IS NULL THEN $6::boolean IS NULL OR c.significant = $6 ELSE $11::boolean END
               AND ($7::timestamptz IS NULL OR c.occurred_at >= $7)
             ORDER BY c.next_offset, c.sequence
             LIMIT w.share)
            UNION ALL
            (SELECT c.log_id, c.next_offset, c.sequence, c.change::text, c.deletion_type FROM order_live.address_changes c
             WHERE $5::uuid IS NULL AND $6::boolean
               AND (c.significant OR c.deletion_type IS NOT NULL)
               AND c.log_id = w.log_id AND (c.next_offset, c.sequence) > (w.next_offset, w.sequence)
               AND (c.deletion_type IS NULL OR $11::boolean)
               AND ($7::timestamptz IS NULL OR c.occurred_at >= $7)
             ORDER BY c.next_offset, c.sequence
             LIMIT w.share)
            UNION ALL
            (SELECT c.log_id, c.next_offset, c.sequence, c.change::text, c.deletion_type FROM order_live.address_changes c
             WHERE $5::uuid IS NOT NULL AND c.user_key = $5 AND c.user_id = $9
               AND c.log_id = w.log_id AND (c.next_offset, c.sequence) > (w.next_offset, w.sequence)
               AND CASE WHEN c.deletion_type IS NULL THEN $6::boolean IS NULL OR c.significant = $6 ELSE $11::boolean END
               AND ($7::timestamptz IS NULL OR c.occurred_at >= $7)
             ORDER BY c.next_offset, c.sequence
             LIMIT w.share)
        ) e
    ) c
    -- The last row of a whole share: the log may have more.
    WHERE w.rank % w.share = 0 AND w.read < $4
), page AS (
    SELECT log_id, next_offset, sequence, change, deletion_type, rank FROM walk WHERE rank > 0 ORDER BY rank, log_id LIMIT $4
), sized AS (
    SELECT *, sum(octet_length(change)) OVER (ORDER BY rank, log_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
    FROM page
), found AS (
    SELECT array_agg(log_id) AS log_ids, array_agg(next_offset) AS next_offsets, array_agg(sequence) AS sequences,
           array_agg(change) AS changes, array_agg(deletion_type IS NOT NULL) AS are_deletions
    FROM (
        SELECT *
        FROM sized
        -- The page ends with the entry that makes it as large as $10 bytes.
        WHERE coalesce(bytes_before, 0) < $10::bigint
        ORDER BY rank, log_id
    ) s
)
SELECT coalesce(f.log_ids, '{}') AS "log_ids!", coalesce(f.next_offsets, '{}') AS "next_offsets!",
       coalesce(f.sequences, '{}') AS "sequences!", coalesce(f.changes, '{}') AS "changes!",
       coalesce(f.are_deletions, '{}') AS "are_deletions!",
       v.version AS "version!", v.ready AS "ready!",
       (SELECT d.id FROM sightline.dead_letters d
               WHERE d.domain = 'order' AND d.version = v.version AND d.key_hash = $5
                 AND d.state IN ('parked', 'retrying') LIMIT 1) AS dead_letter,
       sightline.must_resync('order', $8, v.version, $1, $2, $3) AS "resync!",
       coalesce(p.logs, '{}') AS "logs!", coalesce(p.offsets, '{}') AS "offsets!"
FROM order_live.view_version v
CROSS JOIN found f
CROSS JOIN (SELECT array_agg(log_id) AS logs, array_agg(position) AS offsets FROM logs) p
