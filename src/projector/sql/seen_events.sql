-- Which of these event ids ($2) were applied from this log ($1): at which offset, and at which time of the log.
SELECT s.event_hash, s.record_offset, s.applied_time
FROM unnest($2::uuid[]) AS asked (event_hash)
JOIN seen_events s ON s.event_hash = asked.event_hash AND s.log_id = $1
