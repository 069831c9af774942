-- A new version begins where the live one began, and holds later partitions back as the live one did.
INSERT INTO sightline.progress (domain, version, log_id, start_offset, next_offset, held_until)
SELECT p.domain, $2, p.log_id, p.start_offset, p.start_offset, p.held_until
FROM sightline.progress p
JOIN sightline.views v USING (domain, version)
WHERE p.domain = $1 AND v.state = 'live'
