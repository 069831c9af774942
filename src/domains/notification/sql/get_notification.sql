-- A notification by its id ($1), and the position of the log that its user is made from, else those of all logs, in one snapshot.
-- Open dead letters under its user's id may say more of it: that the user was deleted, for one.
SELECT coalesce(f.notification_ids, '{}') AS "notification_ids!", coalesce(f.event_ids, '{}') AS "event_ids!",
       coalesce(f.user_ids, '{}') AS "user_ids!", coalesce(f.templates, '{}') AS "templates!",
       coalesce(f.recipients, '{}') AS "recipients!: Vec<Option<String>>",
       coalesce(f.data::text[], '{}') AS "data!: Vec<Option<String>>",
       coalesce(f.statuses, '{}') AS "statuses!", coalesce(f.attempts, '{}') AS "attempts!",
       coalesce(f.created, '{}') AS "created!", coalesce(f.expires, '{}') AS "expires!",
       coalesce(f.last_errors, '{}') AS "last_errors!: Vec<Option<String>>",
       v.ready AS "ready!", f.dead_letter,
       coalesce(p.logs, '{}') AS "logs!", coalesce(p.offsets, '{}') AS "offsets!"
FROM notification_live.view_version v
CROSS JOIN LATERAL (
    SELECT array_agg(n.notification_id) AS notification_ids, array_agg(n.event_id) AS event_ids,
           array_agg(n.user_id) AS user_ids, array_agg(n.template) AS templates, array_agg(n.recipient) AS recipients,
           array_agg(n.data) AS data,
           array_agg(notification.status(d.state, d.due_at, n.expires_at, n.recipient)) AS statuses,
           array_agg(d.attempts) AS attempts, array_agg(n.created_at) AS created, array_agg(n.expires_at) AS expires,
           array_agg(d.last_error) AS last_errors, min(u.log_id) AS log_id,
           (array_agg((
               SELECT l.id FROM sightline.dead_letters l
               WHERE l.domain = 'notification' AND l.version = v.version AND l.key_hash = n.user_key
                 AND l.state IN ('parked', 'retrying') LIMIT 1)))[1] AS dead_letter
    FROM notification_live.notifications n
    JOIN notification.deliveries d USING (notification_id)
    LEFT JOIN notification_live.users u ON u.user_key = n.user_key AND u.user_id = n.user_id AND u.logs = v.logs
    WHERE n.notification_id = $1
) f
CROSS JOIN LATERAL (
    SELECT array_agg(log_id) AS logs, array_agg(next_offset) AS offsets
    FROM sightline.progress
    WHERE domain = 'notification' AND version = v.version AND log_id = coalesce(f.log_id, log_id)
) p
