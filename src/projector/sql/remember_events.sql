-- An id that was forgotten by log time may still have its row: it is remembered anew. A letter's, which was judged as of
-- an earlier time, takes nothing from what was remembered since.
INSERT INTO seen_events AS e (event_hash, log_id, record_offset, stream_time)
SELECT event_hash, $1, record_offset, stream_time
FROM unnest($2::uuid[], $3::bigint[], $4::timestamptz[]) AS n (event_hash, record_offset, stream_time)
ON CONFLICT (event_hash, log_id) DO UPDATE SET record_offset = EXCLUDED.record_offset, stream_time = EXCLUDED.stream_time
WHERE e.stream_time IS NULL OR e.stream_time <= EXCLUDED.stream_time
