-- Addresses by the hashes of their ids ($1), in one snapshot: a row for each log of the view, with its position, and one for each
-- address. If several users have an id, it is the address with the last event. Open dead letters under the user's id are missing
-- from the answer.
SELECT NULL::text AS "id?", NULL::text AS "document?", p.log_id AS "log_id?", p.next_offset AS "next_offset?", v.ready AS "ready?",
       NULL::uuid AS "dead_letter?"
FROM fulfillment_live.view_version v
LEFT JOIN sightline.progress p ON p.domain = 'fulfillment' AND p.version = v.version
UNION ALL
SELECT l.address_id, l.address::text, NULL, NULL, NULL, d.id
FROM fulfillment_live.view_version v
CROSS JOIN unnest($1::uuid[]) AS a (key)
CROSS JOIN LATERAL (
    SELECT c.address_id, c.address, c.user_key
    FROM fulfillment_live.shipping_addresses c
    JOIN sightline.logs l ON l.log_id = c.updated_log
    WHERE c.address_key = a.key AND c.address IS NOT NULL
    ORDER BY c.updated_at DESC, l.topic COLLATE "C" DESC, l.partition DESC, c.updated_offset DESC
    LIMIT 1
) l
LEFT JOIN LATERAL (
    SELECT d.id FROM sightline.dead_letters d
    WHERE d.domain = 'fulfillment' AND d.version = v.version AND d.key_hash = l.user_key
      AND d.state IN ('parked', 'retrying')
    LIMIT 1
) d ON true
