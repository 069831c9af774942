-- Of one partition ($4); if that is null, of all that the topic had in the incarnation that is projected, which may have had
-- more partitions than it has now.
UPDATE sightline.progress p
SET failure = $5
FROM sightline.logs l
WHERE p.domain = $1 AND p.version = $2 AND l.log_id = p.log_id AND l.topic = $3 AND ($4::integer IS NULL OR l.partition = $4)
  AND p.ended_at IS NULL AND p.failure IS DISTINCT FROM $5
