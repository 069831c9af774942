-- Inserts progress rows for partitions ($5) of a topic's incarnation that begin at these offsets ($6). The view is ready once it
-- has reached other offsets ($7, null where it need not); it does not wait for partitions that were added.
INSERT INTO sightline.progress (domain, version, log_id, start_offset, next_offset, ready_offset, code_version)
SELECT $1, $2, l.log_id, begun.start_offset, begun.start_offset,
       CASE WHEN l.added_at IS NULL THEN begun.ready_offset END,
       (SELECT code_version FROM sightline.views WHERE domain = $1 AND version = $2)
FROM unnest($5::integer[], $6::bigint[], $7::bigint[]) AS begun (partition, start_offset, ready_offset)
JOIN sightline.logs l ON l.topic = $3 AND l.topic_identity IN ($4, '-') AND l.partition = begun.partition
