-- Users by the hashes ($1) and the ids ($2) of users, and the positions that the answers reflect, in one snapshot: those of
-- the logs that the rows are made from, where each was found and is made from one log; else those of all logs. Open dead letters
-- under a user's id, which are missing from the answer, are looked for only if that is asked ($3).
SELECT coalesce(c.numbers, '{}') AS numbers, coalesce(c.documents, '{}') AS documents,
       coalesce(c.log_ids, '{}') AS log_ids, coalesce(c.row_logs, '{}') AS row_logs, v.logs AS log_count,
       coalesce(d.numbers, '{}') AS lacking, coalesce(d.ids, '{}') AS dead_letters, coalesce(p.logs, '{}') AS logs, coalesce(p.offsets, '{}') AS offsets,
       v.ready AS ready
FROM {domain}_live.view_version v
CROSS JOIN LATERAL (
    SELECT array_agg(a.number) AS numbers, array_agg(u.state::text) AS documents, array_agg(u.log_id) AS log_ids,
           array_agg(u.logs) AS row_logs,
           coalesce(count(*) = cardinality($1::uuid[]) AND bool_and(u.log_id IS NOT NULL AND u.logs = v.logs), false) AS are_of_one_log
    FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS a (key, id, number)
    CROSS JOIN LATERAL (SELECT * FROM {domain}_live.users WHERE user_key = a.key AND user_id = a.id LIMIT 1) u
) c
CROSS JOIN LATERAL (
    SELECT array_agg(a.number) AS numbers, array_agg(d.id) AS ids
    FROM unnest($1::uuid[]) WITH ORDINALITY AS a (key, number)
    CROSS JOIN LATERAL (
        SELECT id FROM sightline.dead_letters
        WHERE domain = '{domain}' AND version = v.version AND key_hash = a.key AND state IN ('parked', 'retrying')
        LIMIT 1
    ) d
    WHERE $3::boolean
) d
CROSS JOIN LATERAL (
    SELECT array_agg(log_id) AS logs, array_agg(next_offset) AS offsets
    FROM (
        SELECT log_id, next_offset
        FROM sightline.progress
        WHERE c.are_of_one_log AND domain = '{domain}' AND version = v.version AND log_id = ANY (c.log_ids)
        UNION ALL
        SELECT log_id, next_offset
        FROM sightline.progress
        WHERE NOT c.are_of_one_log AND domain = '{domain}' AND version = v.version
    ) p
) p
