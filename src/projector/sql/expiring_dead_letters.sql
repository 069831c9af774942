-- Counts open dead letters of the live version whose bytes expire next.
SELECT count(*) AS "expiring!"
FROM sightline.dead_letters d
JOIN sightline.views v USING (domain, version)
WHERE d.domain = $1 AND v.state = 'live' AND d.state IN ('parked', 'retrying') AND d.erased_at IS NULL
  AND d.first_failed_at < now() - make_interval(days => $2)
