-- The progress of a version in all partitions of topics ($3), in the incarnations that it projects.
SELECT l.log_id, l.cluster_id, l.topic, l.topic_identity, l.partition, p.epoch, p.code_version
FROM sightline.progress p
JOIN sightline.logs l USING (log_id)
WHERE p.domain = $1 AND p.version = $2 AND l.topic = ANY ($3::text[]) AND p.ended_at IS NULL
