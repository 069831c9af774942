SELECT DISTINCT key_hash
FROM sightline.dead_letters
WHERE domain = $1 AND version = $2 AND log_id = $3
  AND state IN ('parked', 'retrying') AND parks AND key_hash IS NOT NULL
