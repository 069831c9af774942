-- Of whichever incarnation of the topic the progress is.
UPDATE sightline.progress p
SET failure = $5
FROM sightline.logs l
WHERE p.domain = $1 AND p.version = $2 AND l.log_id = p.log_id AND l.topic = $3 AND l.partition = $4
  AND p.ended_at IS NULL AND p.failure IS DISTINCT FROM $5
