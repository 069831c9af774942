-- Which of these keys ($4) have open dead letters in a log that comes before this one.
SELECT DISTINCT key_hash AS "key_hash!"
FROM sightline.dead_letters
WHERE domain = $1 AND version = $2
  AND log_id IN (SELECT before FROM sightline.logs_before($1, $2, $3) AS before)
  AND state IN ('parked', 'retrying') AND parks AND key_hash = ANY ($4)
