-- A closed letter is one whose user was deleted later in the same batch.
INSERT INTO sightline.dead_letters (
    id, domain, version, log_id, record_offset, record_time, record_key, key_hash, event_id, event_type, occurred_at,
    reason, field, class, parks, code_version, size, headers, value,
    state, resolution)
SELECT l.id, $1, $2, $3, l.record_offset, l.record_time, l.record_key, l.key_hash, l.event_id, l.event_type, l.occurred_at,
       l.reason, l.field, l.class, l.parks, $4, l.size, l.headers, l.value,
       CASE WHEN l.closed THEN 'discarded' ELSE 'parked' END, CASE WHEN l.closed THEN 'user_deleted' END
FROM unnest($5::uuid[], $6::bigint[], $7::timestamptz[], $8::bytea[], $9::uuid[], $10::text[], $11::text[], $12::timestamptz[],
            $13::text[], $14::text[], $15::text[], $16::boolean[], $17::bigint[], $18::jsonb[], $19::bytea[], $20::boolean[])
     AS l (id, record_offset, record_time, record_key, key_hash, event_id, event_type, occurred_at,
           reason, field, class, parks, size, headers, value, closed)
