-- An id that has expired may still have its row, which the later application renews.
INSERT INTO seen_events AS e (event_hash, log_id, record_offset, applied_time)
SELECT event_hash, log_id, record_offset, applied_time
FROM unnest($1::integer[], $2::uuid[], $3::bigint[], $4::timestamptz[]) AS n (log_id, event_hash, record_offset, applied_time)
ON CONFLICT (event_hash, log_id) DO UPDATE SET record_offset = EXCLUDED.record_offset, applied_time = EXCLUDED.applied_time
WHERE e.record_offset < EXCLUDED.record_offset
