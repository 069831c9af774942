-- After a version was dropped: deliveries that were never sent, of notifications that the live version lacks.
DELETE FROM notification.deliveries AS d
USING notification_live.view_version AS v
WHERE d.state = 'held'
  AND NOT EXISTS (SELECT FROM notification_live.notifications AS n WHERE n.notification_id = d.notification_id)
