-- Letters of the live version that were not published yet.
SELECT d.id, l.topic, l.partition, d.record_offset, d.record_key, d.value, d.event_type, d.reason, d.field, d.class
FROM sightline.dead_letters d
JOIN sightline.views v USING (domain, version)
JOIN sightline.logs l USING (log_id)
WHERE d.domain = $1 AND v.state = 'live' AND d.published_at IS NULL
ORDER BY d.id
LIMIT $2
