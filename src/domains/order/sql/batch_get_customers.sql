-- Customers, and the positions of all logs, in one snapshot.
SELECT coalesce(c.states::text[], '{}') AS "states!",
       coalesce(p.logs, '{}') AS "logs!", coalesce(p.offsets, '{}') AS "offsets!", v.ready AS "ready!"
FROM order_live.view_version v
CROSS JOIN LATERAL (
    SELECT array_agg(state) AS states FROM order_live.users WHERE user_key = ANY ($1)
) c
CROSS JOIN LATERAL (
    SELECT array_agg(log_id) AS logs, array_agg(next_offset) AS offsets
    FROM sightline.progress
    WHERE domain = 'order' AND version = v.version
) p
