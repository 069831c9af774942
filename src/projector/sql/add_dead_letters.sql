-- A dead letter with a resolution is closed from the start: its user was deleted later in the same batch, or an
-- operator discarded the record before. One that waits behind another was not tried.
INSERT INTO sightline.dead_letters (
    id, domain, version, log_id, record_offset, record_time, stream_time, record_key, key_hash, event_id, event_type,
    occurred_at, reason, field, class, attempts, parks, code_version, catalogue_version, size, key_and_headers_size,
    headers, value, state, resolution, resolved_at, erased_at)
SELECT l.id, $1, $2, $3, l.record_offset, l.record_time, l.stream_time, l.record_key, l.key_hash, l.event_id, l.event_type,
       l.occurred_at, l.reason, l.field, l.class, (l.class <> 'blocked')::integer, l.parks, $4, $22, l.size, l.key_and_headers_size,
       l.headers, l.value,
       CASE WHEN l.resolution IS NULL THEN 'parked' ELSE 'discarded' END, l.resolution,
       CASE WHEN l.resolution IS NOT NULL THEN now() END, CASE WHEN l.resolution IS NOT NULL THEN now() END
FROM unnest($5::uuid[], $6::bigint[], $7::timestamptz[], $8::timestamptz[], $9::bytea[], $10::uuid[], $11::text[],
            $12::text[], $13::timestamptz[], $14::text[], $15::text[], $16::text[], $17::boolean[], $18::bigint[],
            $19::jsonb[], $20::bytea[], $21::text[], $23::bigint[])
     AS l (id, record_offset, record_time, stream_time, record_key, key_hash, event_id, event_type, occurred_at,
           reason, field, class, parks, size, headers, value, resolution, key_and_headers_size)
