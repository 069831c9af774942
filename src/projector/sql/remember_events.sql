-- An id that has expired may still have its row, which is then renewed. A retried dead letter is judged as of an earlier
-- stream time: it never moves an id's time back.
INSERT INTO seen_events AS e (event_hash, log_id, record_offset, stream_time)
SELECT event_hash, $1, record_offset, stream_time
FROM unnest($2::uuid[], $3::bigint[], $4::timestamptz[]) AS n (event_hash, record_offset, stream_time)
ON CONFLICT (event_hash, log_id) DO UPDATE SET record_offset = EXCLUDED.record_offset, stream_time = EXCLUDED.stream_time
WHERE e.stream_time IS NULL OR e.stream_time <= EXCLUDED.stream_time
