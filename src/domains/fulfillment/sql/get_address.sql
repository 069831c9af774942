-- An address, and the positions of all logs, in one snapshot. If several users have the id, it is
-- the address with the last event.
SELECT a.address AS "address?: Json<ShippingAddress>",
       coalesce(p.logs, '{}') AS "logs!", coalesce(p.offsets, '{}') AS "offsets!"
FROM fulfillment_live.view_version v
LEFT JOIN LATERAL (
    SELECT c.address
    FROM fulfillment_live.shipping_addresses c
    JOIN sightline.logs l ON l.log_id = c.updated_log
    WHERE c.address_key = $1 AND c.address IS NOT NULL
    ORDER BY c.updated_at DESC, l.topic COLLATE "C" DESC, l.partition DESC, c.updated_offset DESC
    LIMIT 1
) a ON true
CROSS JOIN LATERAL (
    SELECT array_agg(log_id) AS logs, array_agg(next_offset) AS offsets
    FROM sightline.progress
    WHERE domain = 'fulfillment' AND version = v.version
) p
