-- At a switch: deliveries for notifications of the new version that have none. An event that the former version ($1) has passed without
-- making one was perhaps dealt with otherwise at its time: such a notification is never sent.
INSERT INTO notification.deliveries (notification_id, template, created_at, expires_at, state)
SELECT n.notification_id, n.template, n.created_at, n.expires_at,
       CASE WHEN n.data IS NULL THEN 'cancelled'
            WHEN n.expires_at <= now() OR n.record_offset < p.next_offset OR n.record_offset < r.projected_before THEN 'expired'
            WHEN n.recipient IS NULL THEN 'held'
            ELSE 'ready' END
FROM notifications AS n
LEFT JOIN sightline.progress AS p ON p.domain = 'notification' AND p.version = $1 AND p.log_id = n.log_id
LEFT JOIN notification.restores AS r ON r.log_id = n.log_id
WHERE NOT EXISTS (SELECT FROM notification.deliveries AS d WHERE d.notification_id = n.notification_id)
ON CONFLICT DO NOTHING
