-- Where the live version began in each of its logs, and the log start offset now, if it was read within 10 s.
SELECT l.topic, l.partition, p.start_offset, p.lost_tail,
       (p.ended_at IS NOT NULL OR p.failure IS NOT DISTINCT FROM 'topic_recreated') AS "is_another!",
       CASE WHEN e.read_at BETWEEN now() - interval '10 seconds' AND now() + interval '2 seconds' THEN e.log_start_offset END AS log_start
FROM sightline.progress p
JOIN sightline.views v USING (domain, version)
JOIN sightline.logs l USING (log_id)
LEFT JOIN sightline.log_offsets e USING (log_id)
WHERE p.domain = $1 AND v.state = 'live'
ORDER BY l.topic, l.partition, p.log_id
