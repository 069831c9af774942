-- Which of these keys ($4) have open dead letters in versions other than $2, and which of their single dead letters are of
-- the same records as these ($5).
SELECT version AS "version!",
       coalesce(array_agg(DISTINCT key_hash) FILTER (WHERE parks), '{}') AS "keys!",
       coalesce(array_agg(id) FILTER (WHERE NOT parks), '{}') AS "singles!"
FROM sightline.dead_letters
WHERE domain = $1 AND version <> $2 AND log_id = $3 AND state IN ('parked', 'retrying')
  AND (parks AND key_hash = ANY ($4)
       OR NOT parks AND record_offset IN (SELECT record_offset FROM sightline.dead_letters WHERE id = ANY ($5)))
GROUP BY version
ORDER BY version
