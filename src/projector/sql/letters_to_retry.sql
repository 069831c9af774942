-- The next open letters of some keys ($4), and some that stand alone ($5), in the order of the log.
SELECT id, record_offset, record_time, log_time, record_key, key_hash, headers, value
FROM sightline.dead_letters
WHERE domain = $1 AND version = $2 AND log_id = $3 AND state IN ('parked', 'retrying')
  AND (parks AND key_hash = ANY ($4) OR id = ANY ($5)) AND record_offset > $6
ORDER BY record_offset
LIMIT $7
FOR UPDATE
