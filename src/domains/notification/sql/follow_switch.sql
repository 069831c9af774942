-- At a switch: open deliveries follow the notifications of the new version. One that it lacks, or that has no recipient there, is held.
UPDATE notification.deliveries AS d
SET state = f.state, due_at = NULL
FROM (
    SELECT o.notification_id,
           CASE WHEN n.notification_id IS NULL THEN 'held'
                WHEN n.data IS NULL THEN 'cancelled'
                WHEN n.recipient IS NULL THEN 'held'
                ELSE 'ready' END AS state
    FROM notification.deliveries AS o
    LEFT JOIN notifications AS n USING (notification_id)
    WHERE o.state IN ('ready', 'leased', 'backoff', 'held', 'expired')
) AS f
WHERE d.notification_id = f.notification_id
  AND CASE f.state
          WHEN 'cancelled' THEN true
          WHEN 'ready' THEN d.state = 'held'
          ELSE d.state IN ('ready', 'leased', 'backoff') END
