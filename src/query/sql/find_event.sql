-- What the live view of a domain knows of an event ($1 is the hash of its id, $2 the id): blocks of remembered ids that may hold
-- it, its dead letters, and how far the view is in each log. The part of a statement for several domains.
SELECT '{domain}' AS domain, found.*
FROM {domain}_live.view_version v
CROSS JOIN LATERAL (
    SELECT r.log_id, coalesce(r.ids, b.ids) AS block, NULL::uuid AS dead_letter, NULL::text AS state, NULL::bigint AS record_offset,
           NULL::bigint AS next_offset
    FROM {domain}_live.event_id_runs r
    LEFT JOIN LATERAL (
        SELECT c.ids
        FROM {domain}_live.event_id_blocks c
        WHERE r.ids IS NULL AND c.log_id = r.log_id AND c.run = r.run AND c.first_hash <= $1
        ORDER BY c.first_hash DESC
        LIMIT 1
    ) b ON true
    -- Twelve bytes of a hash are kept.
    WHERE position(substr(uuid_send($1), 1, 12) IN coalesce(r.ids, b.ids)) > 0
    UNION ALL
    SELECT d.log_id, NULL, d.id, d.state, d.record_offset, NULL
    FROM sightline.dead_letters d
    WHERE d.domain = '{domain}' AND d.version = v.version AND d.event_id = $2
    UNION ALL
    SELECT p.log_id, NULL, NULL, NULL, NULL, p.next_offset
    FROM sightline.progress p
    WHERE p.domain = '{domain}' AND p.version = v.version
) found
