-- Why logs do not progress in the live views of some domains ($1): the domain is paused, a log has failed, or it was added and
-- waits. Logs that have no reason are left out.
SELECT v.domain, p.log_id, v.pause_reason, p.failure, w.waits,
       CASE WHEN w.waits AND l.waits_for IS NULL THEN extract(epoch FROM now() - l.added_at)::float8 END AS added_age
FROM sightline.views v
JOIN sightline.progress p ON p.domain = v.domain AND p.version = v.version
JOIN sightline.logs l USING (log_id)
CROSS JOIN LATERAL (SELECT sightline.waits_for_partitions(p.domain, p.version, p.log_id) AS waits) w
WHERE v.domain = ANY ($1) AND v.state = 'live' AND p.ended_at IS NULL
  AND (v.pause_reason IS NOT NULL OR p.failure IS NOT NULL OR w.waits)
