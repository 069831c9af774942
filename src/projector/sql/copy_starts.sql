-- A new version ($2) begins where the live one began, and holds later partitions back as the live one did; where the
-- log does not reach back to that (who comes here has accepted it), at the log's beginning. Of a topic that was created
-- anew, the partitions that there are now are found by whoever projects the version.
INSERT INTO sightline.progress (domain, version, log_id, start_offset, next_offset, held_until)
SELECT p.domain, $2, p.log_id, greatest(p.start_offset, e.start_offset), greatest(p.start_offset, e.start_offset), p.held_until
FROM sightline.progress p
JOIN sightline.views v USING (domain, version)
LEFT JOIN sightline.log_ends e USING (log_id)
WHERE p.domain = $1 AND v.state = 'live' AND p.ended_at IS NULL AND p.failure IS DISTINCT FROM 'topic_recreated'
