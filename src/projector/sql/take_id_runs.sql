-- Deletes runs of a log, and returns their blocks. A run that another process has taken is missing.
WITH runs AS (
    DELETE FROM event_id_runs
    WHERE log_id = $1 AND run = ANY ($2)
    RETURNING run, ids
), blocks AS (
    DELETE FROM event_id_blocks b
    USING runs r
    WHERE b.log_id = $1 AND b.run = r.run
    RETURNING b.ids
)
SELECT ids FROM runs WHERE ids IS NOT NULL
UNION ALL
SELECT ids FROM blocks
