-- What the live view of a domain knows of events ($1 are the hashes of their ids, $2 the ids): blocks of remembered ids that may
-- hold one, and its dead letters, with the event's number from 1; and how far the view is in each log, and whether it will get
-- no further because the topic was created again. The part of a statement for several domains.
SELECT '{domain}' AS domain, found.*
FROM {domain}_live.view_version v
CROSS JOIN LATERAL (
    SELECT wanted.number, r.log_id, coalesce(r.ids, b.ids) AS block, NULL::text AS state, NULL::bigint AS record_offset,
           NULL::bigint AS next_offset, false AS is_former
    FROM unnest($1::uuid[]) WITH ORDINALITY AS wanted (hash, number)
    CROSS JOIN {domain}_live.event_id_runs r
    LEFT JOIN LATERAL (
        SELECT c.ids
        FROM {domain}_live.event_id_blocks c
        WHERE r.ids IS NULL AND c.log_id = r.log_id AND c.run = r.run AND c.first_hash <= wanted.hash
        ORDER BY c.first_hash DESC
        LIMIT 1
    ) b ON true
    -- Twelve bytes of a hash are kept.
    WHERE position(substr(uuid_send(wanted.hash), 1, 12) IN coalesce(r.ids, b.ids)) > 0
    UNION ALL
    SELECT wanted.number, d.log_id, NULL, d.state, d.record_offset, NULL, false
    FROM unnest($2::text[]) WITH ORDINALITY AS wanted (id, number)
    JOIN sightline.dead_letters d ON d.event_id = wanted.id
    WHERE d.domain = '{domain}' AND d.version = v.version
    UNION ALL
    SELECT NULL, l.log_id, NULL, NULL, NULL, p.next_offset, l.is_former
    FROM (
        SELECT former.log_id, EXISTS (
            SELECT FROM sightline.logs newer
            JOIN sightline.progress reached USING (log_id)
            WHERE newer.topic = former.topic AND newer.topic_identity <> former.topic_identity AND newer.log_id > former.log_id
              AND reached.domain = '{domain}' AND reached.version = v.version
        ) AS is_former
        FROM sightline.logs former
    ) l
    LEFT JOIN sightline.progress p ON p.domain = '{domain}' AND p.version = v.version AND p.log_id = l.log_id
    WHERE l.is_former OR p.log_id IS NOT NULL
) found
