-- The parked keys of a log: those with open dead letters in it, or in a log that comes before it.
SELECT DISTINCT key_hash
FROM sightline.dead_letters
WHERE domain = $1 AND version = $2
  AND (log_id = $3 OR log_id IN (SELECT before FROM sightline.logs_before($1, $2, $3) AS before))
  AND state IN ('parked', 'retrying') AND parks AND key_hash IS NOT NULL
