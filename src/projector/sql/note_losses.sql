-- Stores, for a switch ($4) from one version ($2) to another ($3), the logs whose feed positions differ as a whole.
WITH old AS (
    SELECT * FROM sightline.progress WHERE domain = $1 AND version = $2
), new AS (
    SELECT * FROM sightline.progress WHERE domain = $1 AND version = $3
)
INSERT INTO sightline.moved_changes (switch_id, log_id, from_next_offset, from_sequence, until_next_offset, until_sequence)
-- What the new version could no longer read.
SELECT $4::bigint, log_id, 0, 0, new.start_offset, 0
FROM old JOIN new USING (log_id)
WHERE new.start_offset > old.start_offset
UNION ALL
-- A log that no longer exists, one that lost its tail, and versions of different code: their feed positions are not
-- comparable.
SELECT $4::bigint, log_id, 0, 0, NULL, NULL
FROM old LEFT JOIN new USING (log_id)
WHERE new.log_id IS NULL OR old.lost_tail OR new.lost_tail
   OR (SELECT count(DISTINCT code_version) FROM sightline.views WHERE domain = $1 AND version IN ($2, $3)) > 1
