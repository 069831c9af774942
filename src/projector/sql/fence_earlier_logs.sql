-- Raises the epochs of the logs that come before one ($3): their owners read again which keys are parked. The rows are locked in
-- key order, and before the caller's own, as by all transactions that lock several.
WITH earlier AS (
    SELECT p.log_id
    FROM sightline.progress AS p
    WHERE p.domain = $1 AND p.version = $2
      AND p.log_id IN (SELECT before FROM sightline.logs_before($1, $2, $3) AS before)
    ORDER BY p.log_id
    FOR UPDATE
)
UPDATE sightline.progress AS p
SET epoch = p.epoch + 1
FROM earlier
WHERE p.domain = $1 AND p.version = $2 AND p.log_id = earlier.log_id
