-- Whether entries concern a role ($1 is the hash, $2 the id as it is in facts), and the positions of all logs.
SELECT v.ready AS "ready!", k.known AS "known!", coalesce(p.logs, '{}') AS "logs!", coalesce(p.offsets, '{}') AS "offsets!"
FROM audit_live.view_version v
CROSS JOIN LATERAL (
    SELECT EXISTS (SELECT FROM audit_live.entries e WHERE e.role_key = $1 AND strpos(e.facts, $2) > 0) AS known
) k
CROSS JOIN LATERAL (
    SELECT array_agg(log_id) AS logs, array_agg(next_offset) AS offsets
    FROM sightline.progress
    WHERE domain = 'audit' AND version = v.version
) p
