-- Counts the first hundred names per log. More would let a producer fill the table.
WITH named AS (
    SELECT t.event_type, t.events, u.event_type IS NOT NULL AS is_known
    FROM unnest($4::text[], $5::bigint[]) AS t (event_type, events)
    LEFT JOIN sightline.unknown_types u
        ON u.domain = $1 AND u.version = $2 AND u.log_id = $3 AND u.event_type = t.event_type
), fresh AS (
    SELECT event_type FROM named WHERE NOT is_known
    LIMIT greatest(0, 100 - (SELECT count(*) FROM sightline.unknown_types u
                             WHERE u.domain = $1 AND u.version = $2 AND u.log_id = $3))
)
INSERT INTO sightline.unknown_types (domain, version, log_id, event_type, events)
SELECT $1, $2, $3, event_type, events
FROM named
WHERE is_known OR event_type IN (SELECT event_type FROM fresh)
ON CONFLICT (domain, version, log_id, event_type) DO UPDATE SET events = sightline.unknown_types.events + EXCLUDED.events
