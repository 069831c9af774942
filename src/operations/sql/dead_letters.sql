-- A page of the dead letters of the domains ($1) in the versions that are shown: those that match
-- key, reason and one of the states ($2 to $4, null matches all), after the id $6 where it is not null. Columns
-- that may be large are left out.
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
  AND ($4::text[] IS NULL OR d.state = ANY ($4))
  AND ($6::uuid IS NULL OR d.id > $6)
ORDER BY d.id
LIMIT $5
