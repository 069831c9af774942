-- Extends the lease ($2) of a notification ($1) by so many seconds ($3) from now. One that has run out is extended, too, unless the
-- notification was leased again or has expired. Returns the state before, and whether the lease was the last one.
WITH locked AS (
    SELECT d.notification_id, d.state, d.lease_token IS NOT DISTINCT FROM $2::uuid AS is_last,
           d.expires_at > now() OR (d.state = 'leased' AND d.due_at > now()) AS is_in_time
    FROM notification.deliveries d
    WHERE d.notification_id = $1
    FOR UPDATE
), changed AS (
    UPDATE notification.deliveries AS d
    SET state = 'leased', due_at = now() + make_interval(secs => $3)
    FROM locked l
    WHERE d.notification_id = l.notification_id AND l.is_last AND l.is_in_time AND l.state IN ('ready', 'leased')
    RETURNING d.due_at
)
SELECT l.state AS "state!", l.is_last AS "is_last!", (SELECT due_at FROM changed) AS leased_until
FROM locked l
