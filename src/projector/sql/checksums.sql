-- The statements that sum up each table of a version, in whatever order its rows lie. What counts writes, or says
-- where in the order of applying something lies, is of the version's own history, not of what it holds.
SELECT tablename::text AS "name!",
       format('SELECT count(*), coalesce(sum((''x'' || left(md5((to_jsonb(t) - ''{revision,sequence,next_offset,logs}''::text[])::text), 15))::bit(60)::bigint), 0)::text FROM %I.%I AS t',
              schemaname, tablename) AS "statement!"
FROM pg_tables
WHERE schemaname = $1 AND tablename NOT IN ('view_version', 'seen_events')
ORDER BY tablename
