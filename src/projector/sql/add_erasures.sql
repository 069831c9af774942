-- Notes that the dead letters of these keys ($4) are to be erased in other logs than this one ($3), if the view has others.
INSERT INTO sightline.erasures (domain, version, key_hash, log_id)
SELECT $1, $2, key_hash, $3
FROM unnest($4::uuid[]) AS deleted (key_hash)
WHERE EXISTS (SELECT FROM sightline.progress AS p WHERE p.domain = $1 AND p.version = $2 AND p.log_id <> $3)
ON CONFLICT DO NOTHING
