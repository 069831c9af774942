-- A page of notifications, oldest first, and the positions that it reflects, in one snapshot: those with a status ($1) and a template
-- ($2), after the last one of the page before ($4, $5). One of the first two branches is run: which one depends on whether there
-- is a user ($6, $7). A user's answer reflects the log that the user's row is made from, if that is one; else all logs. Without one, each state of deliveries that can have one of the statuses ($8) and each template is read
-- separately, so that an index returns the rows in order. A delivery may be overdue in any state that is not final. If only that
-- is asked of states ($9), the third branch finds those few by when they expire: maintenance soon makes them final.
WITH logs AS (
    SELECT p.log_id, p.next_offset
    FROM notification_live.view_version v
    LEFT JOIN notification_live.users u ON u.user_key = $6 AND u.user_id = $7 AND u.logs = v.logs
    JOIN sightline.progress p ON p.domain = 'notification' AND p.version = v.version AND p.log_id = coalesce(u.log_id, p.log_id)
), page AS (
    SELECT *
    FROM (
        (SELECT n.*, d.attempts, d.last_error, notification.status(d.state, d.due_at, n.expires_at, n.recipient) AS status
         FROM notification_live.notifications n
         JOIN notification.deliveries d USING (notification_id)
         WHERE $6::uuid IS NOT NULL AND n.user_key = $6 AND n.user_id = $7
           AND (n.created_at, n.notification_id) > (coalesce($4::timestamptz, '-infinity'), $5::uuid)
           AND n.template = ANY ($2)
           AND notification.status(d.state, d.due_at, n.expires_at, n.recipient) = ANY ($1)
         ORDER BY n.created_at, n.notification_id
         LIMIT $3)
        UNION ALL
        (SELECT a.*
         FROM unnest($8::text[]) AS s (state)
         CROSS JOIN unnest($2::text[]) AS t (template)
         CROSS JOIN LATERAL (
             SELECT n.*, d.attempts, d.last_error, notification.status(d.state, d.due_at, n.expires_at, n.recipient) AS status
             FROM notification.deliveries d
             JOIN notification_live.notifications n USING (notification_id)
             WHERE $6::uuid IS NULL AND d.state = s.state AND d.template = t.template
               AND (d.created_at, d.notification_id) > (coalesce($4::timestamptz, '-infinity'), $5::uuid)
               AND notification.status(d.state, d.due_at, n.expires_at, n.recipient) = ANY ($1)
             ORDER BY d.created_at, d.notification_id
             LIMIT $3
         ) a)
        UNION ALL
        (SELECT n.*, d.attempts, d.last_error, 'expired'
         FROM notification.deliveries d
         JOIN notification_live.notifications n USING (notification_id)
         WHERE $6::uuid IS NULL AND cardinality($9::text[]) > 0
           AND (d.state IN ('ready', 'leased', 'backoff', 'held')) IS TRUE AND d.expires_at <= now()
           AND d.state = ANY ($9) AND d.template = ANY ($2)
           AND (d.created_at, d.notification_id) > (coalesce($4::timestamptz, '-infinity'), $5::uuid)
           AND notification.status(d.state, d.due_at, n.expires_at, n.recipient) = 'expired'
         ORDER BY d.created_at, d.notification_id
         LIMIT $3)
    ) a
    ORDER BY created_at, notification_id
    LIMIT $3
), sized AS (
    SELECT *, sum(coalesce(octet_length(recipient), 0) + coalesce(octet_length(data), 0))
              OVER (ORDER BY created_at, notification_id ROWS BETWEEN UNBOUNDED PRECEDING AND 2 PRECEDING) AS bytes_before
    FROM page
), found AS (
    SELECT array_agg(notification_id) AS notification_ids, array_agg(event_id) AS event_ids, array_agg(user_id) AS user_ids,
           array_agg(template) AS templates, array_agg(recipient) AS recipients, array_agg(data) AS data,
           array_agg(status) AS statuses, array_agg(attempts) AS attempts, array_agg(created_at) AS created,
           array_agg(expires_at) AS expires, array_agg(last_error) AS last_errors
    FROM (
        SELECT *
        FROM sized
        -- An answer holds 3 MiB. This much text is more than that. A row of it alone is followed by another one, so that it shows
        -- that more follow.
        WHERE coalesce(bytes_before, 0) < 8 * 1024 * 1024
        ORDER BY created_at, notification_id
    ) s
)
SELECT coalesce(f.notification_ids, '{}') AS "notification_ids!", coalesce(f.event_ids, '{}') AS "event_ids!",
       coalesce(f.user_ids, '{}') AS "user_ids!", coalesce(f.templates, '{}') AS "templates!",
       coalesce(f.recipients, '{}') AS "recipients!: Vec<Option<String>>",
       coalesce(f.data::text[], '{}') AS "data!: Vec<Option<String>>",
       coalesce(f.statuses, '{}') AS "statuses!", coalesce(f.attempts, '{}') AS "attempts!",
       coalesce(f.created, '{}') AS "created!", coalesce(f.expires, '{}') AS "expires!",
       coalesce(f.last_errors, '{}') AS "last_errors!: Vec<Option<String>>",
       v.ready AS "ready!",
       (SELECT l.id FROM sightline.dead_letters l
               WHERE l.domain = 'notification' AND l.version = v.version AND l.key_hash = $6
                 AND l.state IN ('parked', 'retrying') LIMIT 1) AS dead_letter,
       coalesce(p.logs, '{}') AS "logs!", coalesce(p.offsets, '{}') AS "offsets!"
FROM notification_live.view_version v
CROSS JOIN found f
CROSS JOIN (SELECT array_agg(log_id) AS logs, array_agg(next_offset) AS offsets FROM logs) p
