-- Gives the emails ($2) of users ($1) to their notifications that have no recipient yet. Where the version is live ($3), these are ready to
-- be sent.
WITH addressed AS (
    UPDATE notifications AS n
    SET recipient = e.email
    FROM unnest($1::uuid[], $2::text[]) AS e (user_key, email)
    WHERE n.user_key = e.user_key AND n.recipient IS NULL AND n.data IS NOT NULL
    RETURNING n.notification_id
), locked AS (
    SELECT d.notification_id
    FROM notification.deliveries AS d
    JOIN addressed USING (notification_id)
    WHERE $3 AND d.state = 'held'
    ORDER BY d.notification_id
    FOR UPDATE OF d
)
UPDATE notification.deliveries AS d
SET state = 'ready'
FROM locked AS l
WHERE d.notification_id = l.notification_id AND d.state = 'held'
