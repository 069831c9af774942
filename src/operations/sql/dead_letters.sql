-- Letters of the shown version of each domain ($1), by filters that may be null, from behind one on ($6); without what may
-- be large.
SELECT d.id, d.domain, l.topic, l.partition, d.record_offset,
       CASE WHEN octet_length(d.record_key) <= 4096 THEN d.record_key END AS record_key, d.event_id, d.event_type, d.reason, d.field,
       d.class, d.state, d.resolution, d.attempts, d.first_failed_at, d.last_failed_at, d.occurred_at, d.resolved_at, d.size,
       NULL::jsonb AS headers, NULL::bytea AS value
FROM sightline.shown_views AS shown
JOIN sightline.dead_letters AS d USING (domain, version)
JOIN sightline.logs AS l USING (log_id)
WHERE shown.domain = ANY ($1::text[])
  AND ($2::uuid IS NULL OR d.key_hash = $2)
  AND ($3::text IS NULL OR d.reason = $3)
  AND ($4::text IS NULL OR d.state = $4)
  AND ($6::uuid IS NULL OR d.id > $6)
ORDER BY d.id
LIMIT $5
