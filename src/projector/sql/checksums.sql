-- The statements that sum up each table of a version, independent of the order of its rows. Columns that count writes,
-- or say where in the order of application a change lies, or follow from that, differ between versions with the same content: left
-- out. Documents are compared by their content.
SELECT c.relname::text AS "name!",
       format('SELECT count(*), coalesce(sum((''x'' || left(md5((to_jsonb(t) - ''{revision,sequence,next_offset,logs,link,salts,digests,sweep_at,key_id}''::text[]%s)::text), 15))::bit(60)::bigint), 0)::text FROM %I.%I AS t',
              (SELECT string_agg(format(' || jsonb_build_object(%L, t.%I::jsonb)', a.attname, a.attname), '' ORDER BY a.attnum)
               FROM pg_attribute a
               WHERE a.attrelid = c.oid AND NOT a.attisdropped AND a.atttypid = 'sightline.document'::regtype),
              n.nspname, c.relname) AS "statement!"
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relname NOT IN ('view_version', 'event_id_runs', 'event_id_blocks')
ORDER BY c.relname
