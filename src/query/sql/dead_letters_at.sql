-- The dead letter that each record, at an offset ($3) of a log ($2), is in the live view of a domain ($1), unless it was applied
-- since. One row for each record, in their order.
SELECT found.id
FROM unnest($1::text[], $2::int[], $3::bigint[]) WITH ORDINALITY AS wanted (domain, log_id, record_offset, number)
LEFT JOIN LATERAL (
    SELECT d.id
    FROM sightline.views v
    JOIN sightline.dead_letters d ON d.domain = v.domain AND d.version = v.version
    WHERE v.domain = wanted.domain AND v.state = 'live'
      AND d.log_id = wanted.log_id AND d.record_offset = wanted.record_offset AND d.state <> 'applied'
    LIMIT 1
) found ON true
ORDER BY wanted.number
