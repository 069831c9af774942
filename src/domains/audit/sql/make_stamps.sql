-- Stamps the records at these offsets ($2) of these logs ($1), with salts ($3), unless another version of the view has done so. Versions
-- that stamp the same records wait for each other here, all in the order of the coordinates.
WITH made AS (
    INSERT INTO audit.stamps (log_id, record_offset, recorded_at, salts)
    SELECT n.log_id, n.record_offset, now(), n.salts
    FROM unnest($1::integer[], $2::bigint[], $3::bytea[]) AS n (log_id, record_offset, salts)
    ORDER BY n.log_id, n.record_offset
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT count(*) AS "count!", now() AS "recorded_at!"
FROM made
