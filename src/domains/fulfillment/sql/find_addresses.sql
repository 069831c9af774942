-- Addresses by the hashes of their ids ($1), and the positions of all logs, in one snapshot. If several users have an id, it is
-- the address with the last event. Open dead letters under the user's id are missing from the answer.
SELECT coalesce(f.numbers, '{}') AS "numbers!", coalesce(f.documents, '{}') AS "documents!",
       coalesce(f.log_ids, '{}') AS "log_ids!: Vec<Option<i32>>", coalesce(f.row_logs, '{}') AS "row_logs!", v.logs AS "log_count!",
       coalesce(f.lacking, '{}') AS "lacking!", coalesce(f.dead_letters, '{}') AS "dead_letters!",
       coalesce(p.logs, '{}') AS "logs!", coalesce(p.offsets, '{}') AS "offsets!",
       v.ready AS "ready!"
FROM fulfillment_live.view_version v
CROSS JOIN LATERAL (
    SELECT array_agg(a.number) AS numbers, array_agg(l.address::text) AS documents, array_agg(NULL::integer) AS log_ids,
           array_agg(0) AS row_logs,
           array_agg(a.number) FILTER (WHERE d.id IS NOT NULL) AS lacking,
           array_agg(d.id) FILTER (WHERE d.id IS NOT NULL) AS dead_letters
    FROM unnest($1::uuid[]) WITH ORDINALITY AS a (key, number)
    CROSS JOIN LATERAL (
        SELECT c.address, c.user_key
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
) f
CROSS JOIN LATERAL (
    SELECT array_agg(log_id) AS logs, array_agg(next_offset) AS offsets
    FROM sightline.progress
    WHERE domain = 'fulfillment' AND version = v.version
) p
