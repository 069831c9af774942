-- Which of these event ids were applied from this log, each with the stream time behind it then.
SELECT s.event_hash, s.stream_time
FROM unnest($2::uuid[]) AS asked (event_hash)
JOIN seen_events s ON s.event_hash = asked.event_hash AND s.log_id = $1
