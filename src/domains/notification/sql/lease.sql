-- Leases the oldest notifications that are ready, at most so many ($1), for so many seconds ($2), of these templates ($3; null: of all),
-- and returns the positions of all logs. Those whose lease or pause is over are ready, too. Rows that another worker is being given are
-- passed over. Nothing is leased from a server that was not compared with Kafka's offsets yet ($4), nor after the database was restored,
-- until an operator has resumed the domain.
WITH logs AS (
    SELECT p.log_id, p.next_offset
    FROM notification_live.view_version v
    JOIN sightline.progress p ON p.domain = 'notification' AND p.version = v.version
), server AS (
    -- Whichever way a database is restored, one of these is another then.
    SELECT concat_ws(' ', extract(epoch FROM pg_postmaster_start_time()), d.oid, pg_relation_filenode('notification.deliveries')) AS id
    FROM pg_database d
    WHERE d.datname = current_database()
), guard AS (
    SELECT d.database_went_back_at IS NOT NULL AS is_held, server.id IS DISTINCT FROM $4::text AS is_unknown, server.id AS server
    FROM server, sightline.domains d
    WHERE d.domain = 'notification'
), ready AS (
    SELECT d.notification_id, d.created_at
    FROM notification.deliveries d
    WHERE $3::text[] IS NULL AND (d.state = 'ready') IS TRUE AND d.expires_at > now()
    ORDER BY d.created_at, d.notification_id
    LIMIT coalesce((SELECT $1::bigint FROM guard WHERE NOT is_held AND NOT is_unknown), 0)
    FOR UPDATE SKIP LOCKED
), ready_of_template AS (
    SELECT d.notification_id, d.created_at
    FROM unnest($3::text[]) AS t (template)
    CROSS JOIN LATERAL (
        SELECT d.notification_id, d.created_at
        FROM notification.deliveries d
        WHERE d.state = 'ready' AND d.template = t.template AND d.expires_at > now()
        ORDER BY d.created_at, d.notification_id
        LIMIT coalesce((SELECT $1::bigint FROM guard WHERE NOT is_held AND NOT is_unknown), 0)
        FOR UPDATE SKIP LOCKED
    ) d
), due AS (
    -- Maintenance makes these ready within seconds (sweep_deliveries.sql). Until then the oldest of them are leased from here.
    SELECT d.notification_id, d.created_at
    FROM (
        SELECT notification_id
        FROM notification.deliveries
        WHERE due_at <= now() AND expires_at > now() AND ($3::text[] IS NULL OR template = ANY ($3))
        ORDER BY due_at
        LIMIT 2000
    ) f
    JOIN notification.deliveries d USING (notification_id)
    WHERE d.due_at <= now()
    ORDER BY d.created_at, d.notification_id
    LIMIT coalesce((SELECT $1::bigint FROM guard WHERE NOT is_held AND NOT is_unknown), 0)
    FOR UPDATE OF d SKIP LOCKED
), chosen AS (
    SELECT notification_id, created_at
    FROM (SELECT * FROM ready UNION ALL SELECT * FROM ready_of_template UNION ALL SELECT * FROM due) AS c
    ORDER BY created_at, notification_id
    LIMIT $1
), sized AS (
    -- Each by its key: a plan for a new table would join all notifications.
    SELECT c.notification_id, n.event_id, n.user_id, n.recipient, n.data::text AS data,
           sum(coalesce(octet_length(n.recipient), 0) + coalesce(octet_length(n.data), 0))
           OVER (ORDER BY c.created_at, c.notification_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
    FROM chosen c
    CROSS JOIN LATERAL (SELECT * FROM notification_live.notifications WHERE notification_id = c.notification_id LIMIT 1) n
), leased AS (
    UPDATE notification.deliveries AS d
    SET state = 'leased', due_at = now() + make_interval(secs => $2), lease_token = gen_random_uuid(), attempts = d.attempts + 1
    FROM sized n
    -- An answer holds 3 MiB, and several requests share the statement.
    WHERE d.notification_id = n.notification_id AND n.recipient IS NOT NULL AND coalesce(n.bytes_before, 0) < 8 * 1024 * 1024
    RETURNING d.notification_id, n.event_id, n.user_id, d.template, n.recipient, n.data, d.attempts, d.created_at, d.expires_at,
              d.last_error, d.lease_token, d.due_at
)
SELECT l.notification_id AS "notification_id?", l.event_id AS "event_id?", l.user_id AS "user_id?", l.template AS "template?", l.recipient AS "recipient?",
       l.data AS "data?", l.attempts AS "attempts?", l.created_at AS "created_at?", l.expires_at AS "expires_at?", l.last_error AS "last_error?",
       l.lease_token AS "lease_token?", l.due_at AS "due_at?",
       g.is_held AS "is_held!", g.is_unknown AS "is_unknown!", g.server AS "server!",
       (SELECT extract(epoch FROM min(due_at) - now())::float8 FROM notification.deliveries WHERE due_at > now()) AS next_due_seconds,
       (SELECT ready FROM notification_live.view_version) AS "ready!",
       (SELECT coalesce(array_agg(log_id), '{}') FROM logs) AS "logs!", (SELECT coalesce(array_agg(next_offset), '{}') FROM logs) AS "offsets!"
FROM guard g
LEFT JOIN leased l ON true
ORDER BY l.created_at, l.notification_id
