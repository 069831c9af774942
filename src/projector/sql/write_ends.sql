-- The newest reading counts, whichever process made it.
INSERT INTO sightline.log_ends (log_id, start_offset, end_offset, read_at)
SELECT l.log_id, e.start_offset, e.end_offset, e.read_at
FROM unnest($3::integer[], $4::bigint[], $5::bigint[], $6::timestamptz[]) AS e (partition, start_offset, end_offset, read_at)
JOIN sightline.logs l ON l.topic = $1 AND l.topic_identity IN ($2, '-') AND l.partition = e.partition
ORDER BY l.log_id
ON CONFLICT (log_id) DO UPDATE
SET start_offset = EXCLUDED.start_offset, end_offset = EXCLUDED.end_offset, read_at = EXCLUDED.read_at
WHERE log_ends.read_at < EXCLUDED.read_at
