-- An address, and the positions of all logs, in one snapshot. If several users have the id, it is
-- the address with the last event.
SELECT a.address AS "address?",
       coalesce(p.logs, '{}') AS "logs!", coalesce(p.offsets, '{}') AS "offsets!", v.ready AS "ready!",
       EXISTS (SELECT FROM sightline.dead_letters d
               WHERE d.domain = 'fulfillment' AND d.version = v.version AND d.key_hash = a.user_key
                 AND d.state IN ('parked', 'retrying')) AS "lacks_dead_letters!"
FROM fulfillment_live.view_version v
LEFT JOIN LATERAL (
    SELECT c.address, c.user_key
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
