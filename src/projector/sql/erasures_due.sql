-- The logs in which dead letters of deleted users' keys are still to be erased, per version, and these keys. A deletion is due
-- once every transaction has ended that may have added such a dead letter unseen.
SELECT e.version AS "version!", d.log_id AS "log_id!", array_agg(DISTINCT e.key_hash) AS "keys!"
FROM sightline.erasures AS e
JOIN sightline.dead_letters AS d
    ON d.domain = e.domain AND d.version = e.version AND d.key_hash = e.key_hash AND d.log_id <> e.log_id
WHERE e.domain = $1 AND e.deleted_at < now() - make_interval(secs => $2)
GROUP BY e.version, d.log_id
ORDER BY e.version, d.log_id
