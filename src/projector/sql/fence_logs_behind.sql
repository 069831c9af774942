-- Raises the epochs of logs that come after one ($3): their owners read again which keys wait for it.
UPDATE sightline.progress AS p
SET epoch = p.epoch + 1
WHERE p.domain = $1 AND p.version = $2
  AND $3 IN (SELECT before FROM sightline.logs_before($1, $2, p.log_id) AS before)
