-- Notes that notifications ($1) were sent, each under a lease ($2). A lease that has run out counts until the notification is leased
-- again: the message was sent. Returns for each the state before, and whether the lease was the last one.
WITH asked AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS a (notification_id, lease_token, number)
), locked AS (
    SELECT d.notification_id, d.state, d.lease_token IS NOT DISTINCT FROM a.lease_token AS is_last, a.number
    FROM notification.deliveries d
    JOIN asked a USING (notification_id)
    ORDER BY d.notification_id
    FOR UPDATE OF d
), changed AS (
    UPDATE notification.deliveries AS d
    SET state = 'sent', due_at = NULL, last_error = NULL
    FROM locked l
    WHERE d.notification_id = l.notification_id AND l.is_last AND l.state NOT IN ('cancelled', 'sent', 'failed')
)
SELECT a.notification_id AS "notification_id!", l.state AS "state?", l.is_last AS "is_last?",
       CASE WHEN l.is_last AND l.state <> 'cancelled' THEN 'sent' ELSE l.state END AS "state_since?"
FROM asked a
LEFT JOIN locked l USING (number)
ORDER BY a.number
