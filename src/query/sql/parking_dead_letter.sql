-- The first dead letter that parks the key of another one ($1), if the key is parked.
SELECT first.id
FROM sightline.dead_letters given
JOIN sightline.dead_letters first
  ON first.domain = given.domain AND first.version = given.version AND first.key_hash = given.key_hash
WHERE given.id = $1 AND first.parks AND first.state IN ('parked', 'retrying')
ORDER BY first.log_id, first.record_offset
LIMIT 1
