-- Which of these event ids ($2) were applied from their logs ($1): at which offset, and at which time of the log.
SELECT s.log_id, s.event_hash, s.record_offset, s.applied_time
FROM unnest($1::integer[], $2::uuid[]) AS asked (log_id, event_hash)
JOIN seen_events s ON (s.event_hash, s.log_id) = (asked.event_hash, asked.log_id)
