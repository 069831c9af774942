-- Makes deliveries ready whose lease has run out or whose pause is over, and ends those for which it is too late, some thousand at a time.
-- Leases do not depend on it: it keeps rows out of their way that they would pass over.
WITH due AS (
    SELECT notification_id
    FROM notification.deliveries
    WHERE due_at <= now()
    ORDER BY due_at
    LIMIT 2000
    FOR UPDATE SKIP LOCKED
), late AS (
    SELECT notification_id
    FROM notification.deliveries
    WHERE (state IN ('ready', 'leased', 'backoff', 'held')) IS TRUE AND state IN ('ready', 'held') AND expires_at <= now()
    ORDER BY expires_at
    LIMIT 2000
    FOR UPDATE SKIP LOCKED
), swept AS (
    UPDATE notification.deliveries AS d
    SET state = CASE WHEN d.expires_at <= now() THEN 'expired' ELSE 'ready' END, due_at = NULL
    FROM (SELECT notification_id FROM due UNION SELECT notification_id FROM late) AS s
    WHERE d.notification_id = s.notification_id
    RETURNING d.state
)
SELECT count(*) FILTER (WHERE state = 'ready') AS "ready!", count(*) AS "all!" FROM swept
