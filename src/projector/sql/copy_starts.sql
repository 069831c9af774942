-- A new version ($2) begins where the live one began, or at the log start offset where the log no longer reaches back
-- (the operator has accepted that). The partitions of a topic that was created again get their rows when the version is
-- first projected.
INSERT INTO sightline.progress (domain, version, log_id, start_offset, next_offset, ready_offset, code_version)
SELECT p.domain, $2, p.log_id, greatest(p.start_offset, e.log_start_offset), greatest(p.start_offset, e.log_start_offset),
       p.ready_offset,
       -- No older code folds what this version's code has begun.
       (SELECT n.code_version FROM sightline.views AS n WHERE n.domain = $1 AND n.version = $2)
FROM sightline.progress p
JOIN sightline.views v USING (domain, version)
LEFT JOIN sightline.log_offsets e USING (log_id)
WHERE p.domain = $1 AND v.state = 'live' AND p.ended_at IS NULL AND p.failure IS DISTINCT FROM 'topic_recreated'
