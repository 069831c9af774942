-- What happened until a time ($7) to roles ($1) and permissions ($2): all entries of some actions ($3 of roles, $4 of permissions), and
-- of other actions ($5, $6), which may be many, the last entry of each pair of role and permission in each log.
SELECT e.log_id AS "log_id!", e.record_offset AS "record_offset!", e.occurred_at AS "occurred_at!", e.action AS "action!",
       e.facts::text AS "facts!", e.changed_values::text AS "changed_values: String"
FROM audit_live.view_version v
CROSS JOIN LATERAL (
    SELECT e.log_id, e.record_offset, e.occurred_at, e.action, e.facts, e.changed_values
    FROM audit_live.entries e
    WHERE e.role_key = ANY ($1::uuid[]) AND e.action = ANY ($3::smallint[]) AND e.occurred_at <= coalesce($7::timestamptz, 'infinity')
    UNION ALL
    SELECT e.log_id, e.record_offset, e.occurred_at, e.action, e.facts, e.changed_values
    FROM audit_live.entries e
    WHERE e.permission_key = ANY ($2::uuid[]) AND e.action = ANY ($4::smallint[]) AND e.occurred_at <= coalesce($7, 'infinity')
    UNION ALL
    (SELECT DISTINCT ON (e.role_key, e.permission_key, e.log_id)
            e.log_id, e.record_offset, e.occurred_at, e.action, e.facts, e.changed_values
     FROM audit_live.entries e
     WHERE e.role_key = ANY ($1) AND e.action = ANY ($5::smallint[]) AND e.occurred_at <= coalesce($7, 'infinity')
     ORDER BY e.role_key, e.permission_key, e.log_id, e.record_offset DESC)
    UNION ALL
    (SELECT DISTINCT ON (e.role_key, e.permission_key, e.log_id)
            e.log_id, e.record_offset, e.occurred_at, e.action, e.facts, e.changed_values
     FROM audit_live.entries e
     WHERE e.permission_key = ANY ($2) AND e.action = ANY ($6::smallint[]) AND e.occurred_at <= coalesce($7, 'infinity')
     ORDER BY e.role_key, e.permission_key, e.log_id, e.record_offset DESC)
) e
