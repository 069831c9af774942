-- Records the partitions of a topic, as many as $4, in this incarnation ($3). Those that are there when an incarnation is
-- first seen begin together. One that appears later was added. Where the id of the topic is unknown ('-') to this process,
-- but was known before, nothing can be said of the incarnation.
WITH known AS (
    SELECT partition, topic_identity FROM sightline.logs WHERE cluster_id = $1 AND topic = $2
)
INSERT INTO sightline.logs (cluster_id, topic, topic_identity, partition, added_at)
SELECT $1, $2, $3, seen.partition,
       CASE WHEN EXISTS (SELECT FROM known WHERE topic_identity = $3) THEN clock_timestamp() END
FROM generate_series(0, $4::integer - 1) AS seen (partition)
WHERE seen.partition NOT IN (SELECT partition FROM known WHERE topic_identity = $3)
  AND NOT ($3 = '-' AND EXISTS (SELECT FROM known WHERE topic_identity <> '-'))
ORDER BY seen.partition
