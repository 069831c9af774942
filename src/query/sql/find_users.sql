-- Users by the hashes ($1) and the ids ($2) of users, in one snapshot: a row for each log of the view, with its position; one for
-- each user, with the log that it is made from, where that is one, and no logs were added since; and one for each user under whose
-- id there are open dead letters, which are missing from the answer, where that is asked ($3).
SELECT NULL::text AS id, NULL::text AS document, p.log_id, p.next_offset, v.ready, NULL::uuid AS dead_letter
FROM {domain}_live.view_version v
LEFT JOIN sightline.progress p ON p.domain = '{domain}' AND p.version = v.version
UNION ALL
SELECT u.user_id, u.state::text, CASE WHEN u.logs = v.logs THEN u.log_id END, NULL, NULL, NULL
FROM {domain}_live.view_version v
CROSS JOIN {domain}_live.users u
WHERE u.user_key = ANY ($1::uuid[])
UNION ALL
SELECT a.id, NULL, NULL, NULL, NULL, d.id
FROM {domain}_live.view_version v
CROSS JOIN unnest($1::uuid[], $2::text[]) AS a (key, id)
CROSS JOIN LATERAL (
    SELECT id FROM sightline.dead_letters
    WHERE domain = '{domain}' AND version = v.version AND key_hash = a.key AND state IN ('parked', 'retrying')
    LIMIT 1
) d
WHERE $3
