-- How many keys are parked in the live view of a domain ($1).
SELECT count(DISTINCT d.key_hash)
FROM sightline.views v
JOIN sightline.dead_letters d ON d.domain = v.domain AND d.version = v.version
WHERE v.domain = $1 AND v.state = 'live' AND d.parks AND d.state IN ('parked', 'retrying')
