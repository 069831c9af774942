-- The facts until an instant of every user whose events have named an address id, and the positions
-- of all logs, in one snapshot.
SELECT h.mentions AS "mentions?: Json<Vec<Mention>>",
       coalesce(p.logs, '{}') AS "logs!", coalesce(p.offsets, '{}') AS "offsets!", v.ready AS "ready!"
FROM fulfillment_live.view_version v
CROSS JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_object('userId', c.user_id, 'facts', f.facts)) AS mentions
    FROM fulfillment_live.shipping_addresses c
    CROSS JOIN LATERAL (
        SELECT jsonb_agg(jsonb_build_object('at', occurred_at, 'log', log_id, 'offset', record_offset, 'fact', fact)
                         ORDER BY revision, sequence) AS facts
        FROM fulfillment_live.user_history
        WHERE user_key = c.user_key AND occurred_at <= $2
    ) f
    WHERE c.address_key = $1 AND f.facts IS NOT NULL
) h
CROSS JOIN LATERAL (
    SELECT array_agg(log_id) AS logs, array_agg(next_offset) AS offsets
    FROM sightline.progress
    WHERE domain = 'fulfillment' AND version = v.version
) p
