-- Notes that the dead letters of these keys ($4) are to be erased in other logs than this one ($3), if the view has others. The
-- time is that shortly before the commit, not that at which the transaction began; of two deletions that of the later one.
INSERT INTO sightline.erasures (domain, version, key_hash, log_id, deleted_at)
SELECT $1, $2, key_hash, $3, clock_timestamp()
FROM (SELECT DISTINCT unnest($4::uuid[]) AS key_hash) AS deleted
WHERE EXISTS (SELECT FROM sightline.progress AS p WHERE p.domain = $1 AND p.version = $2 AND p.log_id <> $3)
ON CONFLICT (domain, version, key_hash, log_id) DO UPDATE SET deleted_at = excluded.deleted_at
