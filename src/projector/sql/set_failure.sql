-- Of the logs ($3) whose rows still have the epochs ($4) under which the failure was found: a superseded owner writes none. The rows
-- are locked in key order, as by all transactions that lock several.
WITH failed AS (
    SELECT p.log_id
    FROM sightline.progress p
    JOIN unnest($3::integer[], $4::bigint[]) AS found (log_id, epoch) USING (log_id, epoch)
    WHERE p.domain = $1 AND p.version = $2 AND p.ended_at IS NULL AND p.failure IS DISTINCT FROM $5
    ORDER BY p.log_id
    FOR UPDATE OF p
)
UPDATE sightline.progress p
SET failure = $5
FROM failed
WHERE p.domain = $1 AND p.version = $2 AND p.log_id = failed.log_id
