-- How many keys are parked in the live view of each domain ($1). One row for each, in their order.
SELECT (
    SELECT count(DISTINCT d.key_hash)
    FROM sightline.views v
    JOIN sightline.dead_letters d ON d.domain = v.domain AND d.version = v.version
    WHERE v.domain = wanted.domain AND v.state = 'live' AND d.parks AND d.state IN ('parked', 'retrying')
)
FROM unnest($1::text[]) WITH ORDINALITY AS wanted (domain, number)
ORDER BY wanted.number
