-- Notes that notifications ($1) could not be sent, each under a lease ($2) and for a reason ($3): it is ready again after a pause ($5, in
-- seconds, which doubles with every attempt, up to an hour), or failed after so many attempts ($4). Returns what acknowledge.sql does.
WITH asked AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[]) WITH ORDINALITY AS a (notification_id, lease_token, reason, number)
), locked AS (
    SELECT d.notification_id, d.state, d.lease_token IS NOT DISTINCT FROM a.lease_token AND d.state <> 'sent' AS is_last, a.reason, a.number
    FROM notification.deliveries d
    JOIN asked a USING (notification_id)
    ORDER BY d.notification_id
    FOR UPDATE OF d
), changed AS (
    UPDATE notification.deliveries AS d
    SET state = CASE WHEN d.state NOT IN ('ready', 'leased') THEN d.state
                     WHEN d.attempts >= $4 THEN 'failed'
                     ELSE 'backoff' END,
        due_at = CASE WHEN d.state IN ('ready', 'leased') AND d.attempts < $4
                      THEN now() + make_interval(secs => least($5 * 2 ^ least(d.attempts - 1, 12), 3600)) END,
        lease_token = NULL, last_error = l.reason
    FROM locked l
    WHERE d.notification_id = l.notification_id AND l.is_last AND l.state <> 'cancelled'
    RETURNING d.notification_id, d.state
)
SELECT a.notification_id AS "notification_id!", l.state AS "state?", l.is_last AS "is_last?",
       coalesce(c.state, l.state) AS "state_since?"
FROM asked a
LEFT JOIN locked l USING (number)
LEFT JOIN changed c ON c.notification_id = a.notification_id
ORDER BY a.number
