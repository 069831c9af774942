-- Where the live version began in each log that it projects, and where the log begins now, if that was read lately.
SELECT l.topic, l.partition, p.start_offset, p.failure,
       CASE WHEN e.read_at > now() - interval '10 seconds' THEN e.start_offset END AS log_start
FROM sightline.progress p
JOIN sightline.views v USING (domain, version)
JOIN sightline.logs l USING (log_id)
LEFT JOIN sightline.log_ends e USING (log_id)
WHERE p.domain = $1 AND v.state = 'live' AND p.ended_at IS NULL
ORDER BY l.topic, l.partition
