-- The session that has locked tables of a domain's ($1) versions for the longest time.
SELECT coalesce(nullif(a.application_name, ''), 'a session without application_name') AS "application!",
       extract(epoch FROM now() - a.xact_start)::bigint AS "seconds!"
FROM pg_locks AS l
JOIN pg_class AS c ON c.oid = l.relation
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN sightline.views AS v ON v.schema_name = n.nspname
JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE v.domain = $1 AND l.granted AND a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY a.xact_start
LIMIT 1
