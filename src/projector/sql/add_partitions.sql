-- Inserts progress rows for partitions ($6) of a topic's incarnation that begin at these offsets ($7). The view is ready once
-- it has reached other offsets ($8, null where it need not); it does not wait for partitions that were added. The time is the
-- statement's: raise_is_due.sql compares it, and the transaction may have waited for the one that has raised the epochs.
INSERT INTO sightline.progress (domain, version, log_id, start_offset, next_offset, ready_offset, code_version, updated_at)
SELECT $1, $2, l.log_id, begun.start_offset, begun.start_offset,
       CASE WHEN l.added_at IS NULL THEN begun.ready_offset END,
       (SELECT code_version FROM sightline.views WHERE domain = $1 AND version = $2), clock_timestamp()
FROM unnest($6::integer[], $7::bigint[], $8::bigint[]) AS begun (partition, start_offset, ready_offset)
JOIN sightline.logs l ON (l.cluster_id, l.topic, l.topic_identity, l.partition) = ($3, $4, $5, begun.partition)
