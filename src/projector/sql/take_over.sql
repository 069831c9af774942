-- A new owner: whoever held the partition before is fenced from here on.
UPDATE sightline.progress p
SET epoch = p.epoch + 1
FROM sightline.views v
WHERE p.domain = $1 AND p.version = $2 AND p.log_id = $3
  AND v.domain = p.domain AND v.version = p.version
RETURNING p.epoch, p.next_offset, p.log_time, p.failure, v.schema_name
