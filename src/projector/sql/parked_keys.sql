-- The parked keys of logs ($3): those with open dead letters in the log, or in one that comes before it.
SELECT DISTINCT claimed.log_id AS "log_id!", d.key_hash AS "key_hash!"
FROM unnest($3::integer[]) AS claimed (log_id)
CROSS JOIN LATERAL (
    SELECT claimed.log_id AS of_log
    UNION ALL
    SELECT before FROM sightline.logs_before($1, $2, claimed.log_id) AS before
) AS scope
JOIN sightline.dead_letters AS d ON (d.domain, d.version, d.log_id) = ($1, $2, scope.of_log)
WHERE d.state IN ('parked', 'retrying') AND d.parks AND d.key_hash IS NOT NULL
