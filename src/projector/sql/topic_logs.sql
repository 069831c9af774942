-- The logs of a topic's incarnation. Ages are in seconds, by the database's clock, which also wrote the times.
SELECT log_id, partition, extract(epoch FROM clock_timestamp() - added_at)::float8 AS added_age,
       waits_for AS "waits_for: WaitsFor"
FROM sightline.logs
WHERE topic = $1 AND topic_identity IN ($2, '-')
ORDER BY partition
