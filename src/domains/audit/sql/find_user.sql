-- Whether entries concern a user ($1 is the hash, $2 the id as it is in facts), whether the user was deleted until a time ($3), and
-- the positions of all logs.
SELECT v.ready AS "ready!", k.known AS "known!", k.deleted AS "deleted!",
       (SELECT d.id FROM sightline.dead_letters d
               WHERE d.domain = 'audit' AND d.version = v.version AND d.key_hash = $1
                 AND d.state IN ('parked', 'retrying') LIMIT 1) AS dead_letter,
       coalesce(p.logs, '{}') AS "logs!", coalesce(p.offsets, '{}') AS "offsets!"
FROM audit_live.view_version v
CROSS JOIN LATERAL (
    SELECT EXISTS (SELECT FROM audit_live.entries e WHERE e.user_key = $1 AND strpos(e.facts, $2) > 0) AS known,
           EXISTS (SELECT FROM audit_live.entries e
                   WHERE e.user_key = $1 AND e.action = 7 AND e.occurred_at <= coalesce($3::timestamptz, 'infinity')
                     AND strpos(e.facts, $2) > 0) AS deleted
) k
CROSS JOIN LATERAL (
    SELECT array_agg(log_id) AS logs, array_agg(next_offset) AS offsets
    FROM sightline.progress
    WHERE domain = 'audit' AND version = v.version
) p
