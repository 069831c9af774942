-- Users by the hashes of their ids ($1), of those whose rows are made from one log, and the position of that log, in one
-- snapshot. Open dead letters under a user's id are missing from the answer.
SELECT u.user_id, u.state::text AS document, p.log_id, p.next_offset, v.ready,
       (SELECT d.id FROM sightline.dead_letters d
        WHERE d.domain = '{domain}' AND d.version = v.version AND d.key_hash = u.user_key AND d.state IN ('parked', 'retrying')
        LIMIT 1) AS dead_letter
FROM {domain}_live.view_version v
JOIN {domain}_live.users u ON u.user_key = ANY ($1::uuid[]) AND u.logs = v.logs
JOIN sightline.progress p ON p.domain = '{domain}' AND p.version = v.version AND p.log_id = u.log_id
