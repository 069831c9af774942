-- Returns the statement that removes those moved changes of a switch that no feed of the two versions' schemas ($1, $2)
-- contains. A feed is a table with the columns of a feed position. If these are not its primary key, it keeps the last state of
-- each row only, which shows nothing of the changes that led to it: then all moved changes stay. $3 is how many rows one event
-- may make.
WITH feeds AS (
    SELECT n.nspname, c.relname, coalesce(
               (SELECT array_agg(a.attname::text ORDER BY a.attname)
                FROM pg_constraint k
                JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)
                WHERE k.conrelid = c.oid AND k.contype = 'p') = ARRAY['log_id', 'next_offset', 'sequence'], false) AS keeps_changes
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname IN ($1, $2) AND c.relkind = 'r'
      AND (SELECT count(*) FROM pg_attribute a
           WHERE a.attrelid = c.oid AND NOT a.attisdropped AND a.attname IN ('log_id', 'next_offset', 'sequence')) = 3
)
SELECT format('DELETE FROM sightline.moved_changes AS m WHERE switch_id = $1%s',
              coalesce(string_agg(CASE WHEN keeps_changes THEN format(
                  ' AND NOT EXISTS (SELECT FROM %1$I.%2$I AS f WHERE f.log_id = m.log_id'
                  ' AND (f.next_offset = m.from_next_offset AND f.sequence BETWEEN m.from_sequence AND m.from_sequence + %3$s - 1'
                  ' OR f.next_offset = m.until_next_offset AND f.sequence BETWEEN m.until_sequence AND m.until_sequence + %3$s - 1))',
                  nspname, relname, $3::bigint) ELSE ' AND false' END, ''), '')) AS "statement!"
FROM feeds
