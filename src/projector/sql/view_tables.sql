-- The statements that make a version's own tables ($2) in the form of the live ones ($1).
SELECT format('CREATE TABLE %I.%I (LIKE %I.%I INCLUDING ALL)', $2::text, tablename, schemaname, tablename) AS statement
FROM pg_tables
WHERE schemaname = $1 AND tablename NOT IN ('view_version', 'seen_events')
ORDER BY tablename
