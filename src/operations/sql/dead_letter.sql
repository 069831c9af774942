-- One dead letter by its id ($1), if it belongs to the version of its view that is shown.
SELECT d.id, d.domain, l.topic, l.partition, d.record_offset, d.record_key, d.event_id, d.event_type, d.reason, d.field,
       d.class, d.state, d.resolution, d.attempts, d.first_failed_at, d.last_failed_at, d.occurred_at, d.resolved_at, d.size,
       d.headers, d.value
FROM sightline.shown_views AS shown
JOIN sightline.dead_letters AS d USING (domain, version)
JOIN sightline.logs AS l USING (log_id)
WHERE d.id = $1
