-- Erases what notifications say of deleted users ($1). Where the version is live ($2), those that were not sent are cancelled.
WITH erased AS (
    UPDATE notifications AS n
    SET recipient = NULL, data = NULL
    WHERE n.user_key = ANY ($1::uuid[]) AND n.data IS NOT NULL
    RETURNING n.notification_id
), locked AS (
    SELECT d.notification_id
    FROM notification.deliveries AS d
    JOIN erased USING (notification_id)
    WHERE $2
    ORDER BY d.notification_id
    FOR UPDATE OF d
)
UPDATE notification.deliveries AS d
SET state = CASE WHEN d.state IN ('sent', 'failed') THEN d.state ELSE 'cancelled' END, due_at = NULL, last_error = NULL
FROM locked AS l
WHERE d.notification_id = l.notification_id
