-- The facts until an instant of every user whose events have named an address id, an open dead letter of each of these users
-- that has any, and the positions of all logs, in one snapshot.
SELECT coalesce(h.user_ids, '{}') AS "user_ids!", coalesce(h.times, '{}') AS "times!", coalesce(h.log_ids, '{}') AS "log_ids!",
       coalesce(h.record_offsets, '{}') AS "record_offsets!", coalesce(h.facts::text[], '{}') AS "facts!",
       coalesce(d.user_ids, '{}') AS "lacking!", coalesce(d.ids, '{}') AS "dead_letters!",
       coalesce(p.logs, '{}') AS "logs!", coalesce(p.offsets, '{}') AS "offsets!", v.ready AS "ready!"
FROM fulfillment_live.view_version v
CROSS JOIN LATERAL (
    SELECT array_agg(user_id) AS user_ids, array_agg(occurred_at) AS times, array_agg(log_id) AS log_ids,
           array_agg(record_offset) AS record_offsets, array_agg(fact) AS facts
    FROM (
        SELECT c.user_id, f.occurred_at, f.log_id, f.record_offset, f.fact
        FROM fulfillment_live.shipping_addresses c
        JOIN fulfillment_live.user_history f ON f.user_key = c.user_key AND f.occurred_at <= $2
        WHERE c.address_key = $1
        ORDER BY c.user_key, f.revision, f.sequence
    ) f
) h
CROSS JOIN LATERAL (
    SELECT array_agg(user_id) AS user_ids, array_agg(id) AS ids
    FROM (
        SELECT DISTINCT ON (c.user_key) c.user_id, d.id
        FROM fulfillment_live.shipping_addresses c
        JOIN sightline.dead_letters d ON d.key_hash = c.user_key
        WHERE c.address_key = $1 AND d.domain = 'fulfillment' AND d.version = v.version AND d.state IN ('parked', 'retrying')
        ORDER BY c.user_key
    ) d
) d
CROSS JOIN LATERAL (
    SELECT array_agg(log_id) AS logs, array_agg(next_offset) AS offsets
    FROM sightline.progress
    WHERE domain = 'fulfillment' AND version = v.version
) p
