-- What gave a user ($1 is the hash, $2 the id as it is in facts) roles and took them away until a time ($3): the last entry of each
-- role in each log.
SELECT e.log_id AS "log_id!", e.record_offset AS "record_offset!", e.occurred_at AS "occurred_at!", e.action AS "action!",
       e.facts::text AS "facts!", NULL::text AS "changed_values: String"
FROM audit_live.view_version v
CROSS JOIN LATERAL (
    SELECT DISTINCT ON (e.role_key, e.log_id) e.log_id, e.record_offset, e.occurred_at, e.action, e.facts
    FROM audit_live.entries e
    WHERE e.user_key = $1 AND e.action IN (24, 25) AND e.occurred_at <= coalesce($3::timestamptz, 'infinity') AND strpos(e.facts, $2) > 0
    ORDER BY e.role_key, e.log_id, e.record_offset DESC
) e
