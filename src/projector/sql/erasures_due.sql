-- The logs in which dead letters of deleted users' keys are still to be erased, per version, and these keys. A deletion is due
-- after a while ($2), when most transactions have ended that were adding such a dead letter as it was committed. What the others
-- add is due again while the note stays. What a transaction adds that began later ("until") is not the deletion's.
SELECT e.version AS "version!", e.log_id AS "log_id!", array_agg(e.key_hash) AS "keys!",
       array_agg(e.until) AS "until!"
FROM (
    SELECT e.version, d.log_id, e.key_hash, max(e.deleted_at) + make_interval(secs => $2) AS until
    FROM sightline.erasures AS e
    JOIN sightline.dead_letters AS d
        ON d.domain = e.domain AND d.version = e.version AND d.key_hash = e.key_hash AND d.log_id <> e.log_id
    WHERE e.domain = $1 AND e.deleted_at < now() - make_interval(secs => $2)
      AND d.first_failed_at < e.deleted_at + make_interval(secs => $2)
    GROUP BY e.version, d.log_id, e.key_hash
) AS e
GROUP BY e.version, e.log_id
ORDER BY e.version, e.log_id
