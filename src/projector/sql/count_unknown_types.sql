-- The first hundred names of each log; what comes after them is not worth a row that anybody could make.
INSERT INTO sightline.unknown_types (domain, version, log_id, event_type, events)
SELECT $1, $2, $3, t.event_type, t.events
FROM unnest($4::text[], $5::bigint[]) AS t (event_type, events)
WHERE EXISTS (SELECT FROM sightline.unknown_types u
              WHERE u.domain = $1 AND u.version = $2 AND u.log_id = $3 AND u.event_type = t.event_type)
   OR (SELECT count(*) FROM sightline.unknown_types u
       WHERE u.domain = $1 AND u.version = $2 AND u.log_id = $3) < 100
ON CONFLICT (domain, version, log_id, event_type) DO UPDATE SET events = sightline.unknown_types.events + EXCLUDED.events
