-- Raises the epochs of logs that come after one ($3), in these versions ($2): their owners read again which keys wait for it.
-- The rows are locked in key order, as by all transactions that lock several.
WITH later AS (
    SELECT p.version, p.log_id
    FROM sightline.progress AS p
    WHERE p.domain = $1 AND p.version = ANY ($2)
      AND $3 IN (SELECT before FROM sightline.logs_before($1, p.version, p.log_id) AS before)
    ORDER BY p.version, p.log_id
    FOR UPDATE
)
UPDATE sightline.progress AS p
SET epoch = p.epoch + 1
FROM later
WHERE p.domain = $1 AND p.version = later.version AND p.log_id = later.log_id
