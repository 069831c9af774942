-- The open dead letters of these keys ($4) in versions other than $2, and those of the same records as the ones that are
-- retried here: of these keys or single ones ($5). A version that read a record under another limit may have it as a single one.
WITH ours AS (
    SELECT record_offset FROM sightline.dead_letters WHERE id = ANY ($5)
    UNION ALL
    SELECT record_offset
    FROM sightline.dead_letters
    WHERE domain = $1 AND version = $2 AND log_id = $3 AND state IN ('parked', 'retrying') AND parks AND key_hash = ANY ($4)
)
SELECT version AS "version!",
       coalesce(array_agg(DISTINCT key_hash) FILTER (WHERE parks), '{}') AS "keys!",
       coalesce(array_agg(id) FILTER (WHERE NOT parks), '{}') AS "singles!"
FROM sightline.dead_letters
WHERE domain = $1 AND version <> $2 AND log_id = $3 AND state IN ('parked', 'retrying')
  AND (parks AND key_hash = ANY ($4) OR record_offset IN (SELECT record_offset FROM ours))
GROUP BY version
ORDER BY version
