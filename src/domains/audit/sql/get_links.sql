-- The next entries of a log's chain ($1), behind the one with this number ($2), at most so many ($3).
SELECT v.version AS "version!", e.sequence AS "sequence!", e.action AS "action!", e.partition AS "partition!",
       e.record_offset AS "record_offset!", e.occurred_at AS "occurred_at!", e.recorded_at AS "recorded_at!", e.event_id AS "event_id!",
       e.user_key, e.actor_key, e.role_key, e.permission_key, e.ip_key, e.facts::text AS "facts!", e.ip_address, e.user_agent,
       e.changed_values::text AS "changed_values", e.salts, e.digests, e.link AS "link!"
FROM audit_live.view_version v
CROSS JOIN LATERAL (
    SELECT *
    FROM audit_live.entries e
    WHERE e.log_id = $1 AND e.sequence > $2
    ORDER BY e.sequence
    LIMIT $3
) e
ORDER BY e.sequence
