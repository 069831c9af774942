-- The dead letter of a domain ($1) that is the record at an offset ($3) of a log ($2), unless it was applied since.
SELECT d.id
FROM sightline.views v
JOIN sightline.dead_letters d ON d.domain = v.domain AND d.version = v.version AND d.log_id = $2 AND d.record_offset = $3
WHERE v.domain = $1 AND v.state = 'live' AND d.state <> 'applied'
