-- The "compare" of compare-and-set: without a row there is no batch.
SELECT set_config('search_path', $6, true) AS search_path
FROM sightline.progress
WHERE domain = $1 AND version = $2 AND log_id = $3 AND epoch = $4 AND next_offset = $5
FOR UPDATE
