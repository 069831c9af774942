-- Who was given a role ($1 is the hash, $2 the id as it is in facts) until a time ($3) and not deleted: of each user the last entry in
-- each log that gave the role or took it away. Of so many users ($4) at most.
SELECT e.log_id AS "log_id!", e.record_offset AS "record_offset!", e.occurred_at AS "occurred_at!", e.action AS "action!",
       e.facts::json ->> 'userId' AS "user_id!"
FROM audit_live.view_version v
CROSS JOIN LATERAL (
    SELECT h.user_key, h.log_id, h.last[2] AS sequence
    FROM (
        SELECT e.user_key, e.log_id, max(ARRAY[e.record_offset, e.sequence]) AS last
        FROM audit_live.entries e
        WHERE e.role_key = $1 AND e.action IN (24, 25) AND e.occurred_at <= coalesce($3::timestamptz, 'infinity') AND strpos(e.facts, $2) > 0
        GROUP BY e.user_key, e.log_id
    ) h
    WHERE NOT EXISTS (SELECT FROM audit_live.entries d
                      WHERE d.user_key = h.user_key AND d.action = 7 AND d.occurred_at <= coalesce($3::timestamptz, 'infinity'))
    LIMIT $4
) h
JOIN audit_live.entries e ON e.log_id = h.log_id AND e.sequence = h.sequence
