-- Inserts progress rows for partitions ($6) that begin at these offsets ($7). The view is ready once it has reached other
-- offsets ($9, null where it need not).
WITH wanted AS (
    SELECT partition, start_offset, ready_offset
    FROM unnest($6::integer[], $7::bigint[], $9::bigint[]) AS w (partition, start_offset, ready_offset)
), new_logs AS (
    INSERT INTO sightline.logs (cluster_id, topic, topic_identity, partition)
    SELECT $3, $4, $5, partition FROM wanted
    -- Another domain may have inserted the log. An update without a change returns its id.
    ON CONFLICT (topic, topic_identity, partition) DO UPDATE SET partition = EXCLUDED.partition
    RETURNING log_id, partition
)
INSERT INTO sightline.progress (domain, version, log_id, start_offset, next_offset, ready_offset, code_version, waits_for)
SELECT $1, $2, log_id, start_offset, start_offset, ready_offset,
       (SELECT code_version FROM sightline.views WHERE domain = $1 AND version = $2), $8::jsonb
FROM new_logs JOIN wanted USING (partition)
