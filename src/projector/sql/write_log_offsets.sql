-- The newest reading counts, whichever process made it. Processes send its age ($7, in seconds), because only the database's
-- clock is compared. A reading that lies ahead of that clock, which was set back, is replaced.
INSERT INTO sightline.log_offsets (log_id, log_start_offset, log_end_offset, read_at)
SELECT l.log_id, e.log_start_offset, e.log_end_offset, clock_timestamp() - make_interval(secs => e.age)
FROM unnest($4::integer[], $5::bigint[], $6::bigint[], $7::double precision[]) AS e (partition, log_start_offset, log_end_offset, age)
JOIN sightline.logs l ON (l.cluster_id, l.topic, l.topic_identity, l.partition) = ($1, $2, $3, e.partition)
ORDER BY l.log_id
ON CONFLICT (log_id) DO UPDATE
SET log_start_offset = EXCLUDED.log_start_offset, log_end_offset = EXCLUDED.log_end_offset, read_at = EXCLUDED.read_at
WHERE log_offsets.read_at < EXCLUDED.read_at OR log_offsets.read_at > clock_timestamp()
