-- Records the partitions of a topic, as many as $4, in this incarnation ($3). Those that are there when an incarnation is
-- first seen begin together. One that appears later was added.
WITH known AS (
    SELECT partition FROM sightline.logs WHERE topic = $2 AND topic_identity IN ($3, '-')
)
INSERT INTO sightline.logs (cluster_id, topic, topic_identity, partition, added_at)
SELECT $1, $2, $3, seen.partition, CASE WHEN EXISTS (SELECT FROM known) THEN clock_timestamp() END
FROM generate_series(0, $4::integer - 1) AS seen (partition)
WHERE seen.partition NOT IN (SELECT partition FROM known)
ORDER BY seen.partition
