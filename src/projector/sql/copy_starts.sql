-- A new version ($2) begins where the live one began, and holds later partitions back as the live one did, but not for
-- what the log does not hold any more; where the log does not reach back to that (who comes here has accepted it), at the
-- log's beginning. Of a topic that was created anew, the partitions that there are now are found by whoever projects the
-- version.
INSERT INTO sightline.progress (domain, version, log_id, start_offset, next_offset, waits_for)
SELECT p.domain, $2, p.log_id, greatest(p.start_offset, e.log_start_offset), greatest(p.start_offset, e.log_start_offset),
       (SELECT jsonb_object_agg(held.partition, least(held.until::bigint, ends.log_end_offset))
        FROM jsonb_each_text(p.waits_for) AS held (partition, until)
        LEFT JOIN sightline.logs o
            ON o.topic = l.topic AND o.topic_identity = l.topic_identity AND o.partition::text = held.partition
        LEFT JOIN sightline.log_offsets ends ON ends.log_id = o.log_id)
FROM sightline.progress p
JOIN sightline.views v USING (domain, version)
JOIN sightline.logs l USING (log_id)
LEFT JOIN sightline.log_offsets e USING (log_id)
WHERE p.domain = $1 AND v.state = 'live' AND p.ended_at IS NULL AND p.failure IS DISTINCT FROM 'topic_recreated'
