-- Where versions of a view began in the partitions of a topic, in all incarnations.
SELECT l.cluster_id, l.topic_identity, l.partition, min(p.start_offset) AS "start_offset!"
FROM sightline.progress p
JOIN sightline.logs l USING (log_id)
WHERE p.domain = $1 AND l.topic = $2
GROUP BY l.cluster_id, l.topic_identity, l.partition
