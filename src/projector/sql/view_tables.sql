-- Returns the statements that create a version's own tables ($2) like the live ones ($1): columns, constraints, indexes,
-- fill factors.
SELECT format('CREATE TABLE %I.%I (LIKE %I.%I INCLUDING ALL)%s', $2::text, c.relname, n.nspname, c.relname,
              ' WITH (' || array_to_string(c.reloptions, ', ') || ')') AS "statement!"
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relname NOT IN ('view_version', 'event_id_runs', 'event_id_blocks')
ORDER BY c.relname
