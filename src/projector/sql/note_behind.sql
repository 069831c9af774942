-- Notes since when the partitions of a domain's versions have been behind or failed. A commit clears it. Rows that are locked are
-- noted the next time: a transaction that holds one may wait for another.
WITH behind AS (
    SELECT p.domain, p.version, p.log_id
    FROM sightline.views AS v
    JOIN sightline.progress AS p USING (domain, version)
    LEFT JOIN sightline.log_offsets AS ends USING (log_id)
    WHERE v.domain = $1 AND v.state <> 'dropped'
      AND p.ended_at IS NULL AND p.behind_since IS NULL
      AND (p.failure IS NOT NULL OR p.next_offset < ends.log_end_offset)
    ORDER BY p.version, p.log_id
    FOR UPDATE OF p SKIP LOCKED
)
UPDATE sightline.progress AS p
SET behind_since = now()
FROM behind AS b
WHERE (p.domain, p.version, p.log_id) = (b.domain, b.version, b.log_id)
