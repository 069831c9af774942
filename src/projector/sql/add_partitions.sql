-- Inserts progress rows for partitions ($5) of a topic's incarnation that begin at these offsets ($6).
INSERT INTO sightline.progress (domain, version, log_id, start_offset, next_offset)
SELECT $1, $2, l.log_id, begun.start_offset, begun.start_offset
FROM unnest($5::integer[], $6::bigint[]) AS begun (partition, start_offset)
JOIN sightline.logs l ON l.topic = $3 AND l.topic_identity IN ($4, '-') AND l.partition = begun.partition
