-- The statements that sum up each table of a version, independent of the order of its rows. Columns that count writes,
-- or say where in the order of application a change lies, differ between versions with the same content: left out.
SELECT tablename::text AS "name!",
       format('SELECT count(*), coalesce(sum((''x'' || left(md5((to_jsonb(t) - ''{revision,sequence,next_offset,logs}''::text[])::text), 15))::bit(60)::bigint), 0)::text FROM %I.%I AS t',
              schemaname, tablename) AS "statement!"
FROM pg_tables
WHERE schemaname = $1 AND tablename NOT IN ('view_version', 'seen_events')
ORDER BY tablename
