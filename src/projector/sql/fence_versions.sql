-- The caller has locked the rows (lock_versions.sql).
UPDATE sightline.progress AS p
SET epoch = highest.epoch + 1
FROM (SELECT log_id, max(epoch) AS epoch
      FROM sightline.progress
      WHERE domain = $1 AND version = ANY ($2)
      GROUP BY log_id) AS highest
WHERE p.domain = $1 AND p.version = ANY ($2) AND p.log_id = highest.log_id
