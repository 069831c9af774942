-- A partition in which the version ($3) has not come as far as the live one ($2).
--
-- A version that was built with losses accepted has to reach the log end offset: the live one may have read what no longer
-- exists, or a topic that was created again since.
WITH other AS (
    SELECT p.*, l.cluster_id, l.topic, l.topic_identity, l.partition, v.accepts_loss, e.log_end_offset
    FROM sightline.progress p
    JOIN sightline.views v USING (domain, version)
    JOIN sightline.logs l USING (log_id)
    LEFT JOIN sightline.log_offsets e USING (log_id)
    WHERE p.domain = $1 AND p.version = $3 AND p.ended_at IS NULL
), live AS (
    SELECT p.*, l.cluster_id, l.topic, l.topic_identity, l.partition, e.log_end_offset
    FROM sightline.progress p
    JOIN sightline.logs l USING (log_id)
    LEFT JOIN sightline.log_offsets e USING (log_id)
    WHERE p.domain = $1 AND p.version = $2 AND p.ended_at IS NULL
), wanted AS (
    SELECT live.topic, live.partition, live.start_offset, other.next_offset,
           CASE WHEN other.accepts_loss THEN least(live.next_offset, live.log_end_offset) ELSE live.next_offset END AS target
    FROM live
    LEFT JOIN other USING (log_id)
    WHERE NOT EXISTS (
        SELECT FROM other recreated
        WHERE recreated.accepts_loss AND recreated.topic = live.topic
          AND (recreated.cluster_id, recreated.topic_identity) <> (live.cluster_id, live.topic_identity))
    UNION ALL
    SELECT other.topic, other.partition, other.start_offset, other.next_offset, coalesce(other.log_end_offset, other.next_offset + 1)
    FROM other
    WHERE other.accepts_loss AND NOT EXISTS (SELECT FROM live WHERE live.log_id = other.log_id)
)
SELECT topic AS "topic!", partition AS "partition!", target - coalesce(next_offset, start_offset) AS "behind!"
FROM wanted
WHERE next_offset IS NULL OR next_offset < target
ORDER BY topic, partition
LIMIT 1
