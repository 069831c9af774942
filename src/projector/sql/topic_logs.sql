-- The logs of a topic's incarnation ($3), and those recorded while its id was unknown. Ages are in seconds, by the database's
-- clock, which also wrote the times.
SELECT log_id, partition, topic_identity, extract(epoch FROM clock_timestamp() - added_at)::float8 AS added_age,
       waits_for AS "waits_for: WaitsFor"
FROM sightline.logs
WHERE cluster_id = $1 AND topic = $2 AND topic_identity IN ($3, '-')
ORDER BY partition
