-- The newest reading counts, whichever process made it: it tells its age ($6, in seconds), and this clock is
-- the only one that times are compared by.
INSERT INTO sightline.log_ends (log_id, start_offset, end_offset, read_at)
SELECT l.log_id, e.start_offset, e.end_offset, clock_timestamp() - make_interval(secs => e.age)
FROM unnest($3::integer[], $4::bigint[], $5::bigint[], $6::double precision[]) AS e (partition, start_offset, end_offset, age)
JOIN sightline.logs l ON l.topic = $1 AND l.topic_identity IN ($2, '-') AND l.partition = e.partition
ORDER BY l.log_id
ON CONFLICT (log_id) DO UPDATE
SET start_offset = EXCLUDED.start_offset, end_offset = EXCLUDED.end_offset, read_at = EXCLUDED.read_at
WHERE log_ends.read_at < EXCLUDED.read_at
