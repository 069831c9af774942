-- The last notifications to a user ($1 is the hash, $2 the id), newest first, and the positions of the log that they
-- are made from; of all logs, if these are several.
WITH logs AS (
    SELECT p.log_id, p.next_offset
    FROM notification_live.view_version v
    LEFT JOIN notification_live.users u ON u.user_key = $1 AND u.user_id = $2 AND u.logs = v.logs
    JOIN sightline.progress p ON p.domain = 'notification' AND p.version = v.version AND p.log_id = coalesce(u.log_id, p.log_id)
), page AS (
    SELECT n.*, d.attempts, d.last_error, notification.status(d.state, d.due_at, n.expires_at, n.recipient) AS status
    FROM notification_live.notifications n
    JOIN notification.deliveries d USING (notification_id)
    WHERE n.user_key = $1 AND n.user_id = $2
    ORDER BY n.created_at DESC, n.notification_id DESC
    LIMIT $3
), sized AS (
    SELECT *, sum(coalesce(octet_length(recipient), 0) + coalesce(octet_length(data), 0))
              OVER (ORDER BY created_at DESC, notification_id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 2 PRECEDING) AS bytes_before
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
        ORDER BY created_at DESC, notification_id DESC
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
               WHERE l.domain = 'notification' AND l.version = v.version AND l.key_hash = $1
                 AND l.state IN ('parked', 'retrying') LIMIT 1) AS dead_letter,
       coalesce(p.logs, '{}') AS "logs!", coalesce(p.offsets, '{}') AS "offsets!"
FROM notification_live.view_version v
CROSS JOIN found f
CROSS JOIN (SELECT array_agg(log_id) AS logs, array_agg(next_offset) AS offsets FROM logs) p
