-- Counts what workers can lease, up to so many ($1), and finds out how long ago the oldest of it was created. Maintenance makes those ready
-- whose lease has run out, and takes away those that have expired, just before.
SELECT (SELECT count(*)
        FROM (SELECT FROM notification.deliveries WHERE (state = 'ready') IS TRUE LIMIT $1) AS r) AS "ready!",
       (SELECT extract(epoch FROM now() - min(created_at))::bigint
        FROM notification.deliveries
        WHERE (state = 'ready') IS TRUE) AS oldest_seconds
