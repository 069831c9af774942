-- A page of addresses by the feed positions of their last changes, and the positions of all logs, in one snapshot. Each log is read
-- from its own feed position ($1 to $3), in rounds, as in order/sql/list_address_changes.sql: of each log the same share of the page ($4).
-- A deleted address has no document. The feed positions are of a version of the view ($5). If they don't mean the same in the live
-- version, the reader has to read from the beginning ("resync").
WITH RECURSIVE logs AS (
    SELECT p.log_id, p.next_offset AS position, coalesce(a.next_offset, 0) AS next_offset, coalesce(a.sequence, 0) AS sequence,
           ($4::bigint - 1) / count(*) OVER () + 1 AS share
    FROM fulfillment_live.view_version v
    JOIN sightline.progress p ON p.domain = 'fulfillment' AND p.version = v.version
    LEFT JOIN unnest($1::integer[], $2::bigint[], $3::bigint[]) AS a (log_id, next_offset, sequence) USING (log_id)
), walk AS (
    -- The rows of rank 0 are where reading begins.
    SELECT log_id, next_offset, sequence, NULL::text AS address_id, NULL::text AS user_id, NULL::text AS address, share,
           0::bigint AS rank, 0::bigint AS read
    FROM logs
    UNION ALL
    SELECT c.log_id, c.next_offset, c.sequence, c.address_id, c.user_id, c.address, w.share, w.rank + c.rank,
           w.read + count(*) OVER ()
    FROM walk w
    CROSS JOIN LATERAL (
        SELECT e.*, row_number() OVER (ORDER BY e.next_offset, e.sequence) AS rank
        FROM (
            SELECT c.log_id, c.next_offset, c.sequence, c.address_id, c.user_id, c.address::text
            FROM fulfillment_live.shipping_addresses c
            WHERE c.log_id = w.log_id AND (c.next_offset, c.sequence) > (w.next_offset, w.sequence)
            ORDER BY c.next_offset, c.sequence
            LIMIT w.share
        ) e
    ) c
    -- The last row of a whole share: the log may have more.
    WHERE w.rank % w.share = 0 AND w.read < $4
), page AS (
    SELECT * FROM walk WHERE rank > 0 ORDER BY rank, log_id LIMIT $4
), sized AS (
    SELECT *, sum(octet_length(address)) OVER (ORDER BY rank, log_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
    FROM page
), found AS (
    SELECT array_agg(log_id) AS log_ids, array_agg(next_offset) AS next_offsets, array_agg(sequence) AS sequences,
           array_agg(address_id) AS address_ids, array_agg(user_id) AS user_ids, array_agg(address) AS addresses
    FROM (
        SELECT *
        FROM sized
        -- The page ends with the address that makes it as large as $6 bytes.
        WHERE coalesce(bytes_before, 0) < $6::bigint
        ORDER BY rank, log_id
    ) s
)
SELECT coalesce(f.log_ids, '{}') AS "log_ids!", coalesce(f.next_offsets, '{}') AS "next_offsets!",
       coalesce(f.sequences, '{}') AS "sequences!", coalesce(f.address_ids, '{}') AS "address_ids!",
       coalesce(f.user_ids, '{}') AS "user_ids!", coalesce(f.addresses, '{}') AS "addresses!: Vec<Option<String>>",
       v.version AS "version!", v.ready AS "ready!",
       sightline.must_resync('fulfillment', $5, v.version, $1, $2, $3) AS "resync!",
       coalesce(p.logs, '{}') AS "logs!", coalesce(p.offsets, '{}') AS "offsets!"
FROM fulfillment_live.view_version v
CROSS JOIN found f
CROSS JOIN (SELECT array_agg(log_id) AS logs, array_agg(position) AS offsets FROM logs) p
