-- Writes notifications that are not there yet, one for each event and template, with their recipients and data (null where there are none).
-- A template expires so many seconds ($10) after the event. Where the version is live ($11), each new notification gets a delivery, unless
-- one is there from another version. A delivery is final from the start if it is too late, if the user was deleted, or if the event was
-- projected before the database was restored.
WITH written AS (
    INSERT INTO notifications (notification_id, user_key, user_id, template, event_id, recipient, data, created_at, expires_at, log_id, record_offset)
    SELECT n.notification_id, n.user_key, n.user_id, n.template, n.event_id, n.recipient, n.data, n.created_at,
           n.created_at + make_interval(secs => n.expiry), n.log_id, n.record_offset
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[],
                $9::integer[], $10::integer[], $12::bigint[])
        AS n (notification_id, user_key, user_id, template, event_id, recipient, data, created_at, log_id, expiry, record_offset)
    ORDER BY n.notification_id
    ON CONFLICT (notification_id) DO NOTHING
    RETURNING *
)
INSERT INTO notification.deliveries AS d (notification_id, template, created_at, expires_at, state)
SELECT w.notification_id, w.template, w.created_at, w.expires_at,
       CASE WHEN w.data IS NULL THEN 'cancelled'
            WHEN w.expires_at <= now() OR w.record_offset < r.projected_before THEN 'expired'
            WHEN w.recipient IS NULL THEN 'held'
            ELSE 'ready' END
FROM written AS w
LEFT JOIN notification.restores AS r USING (log_id)
WHERE $11
ORDER BY w.notification_id
ON CONFLICT (notification_id) DO UPDATE
SET state = EXCLUDED.state
WHERE d.state = 'held'
