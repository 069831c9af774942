-- Dead letters that went through are counted as if they had never been dead letters.
UPDATE sightline.progress
SET applied       = applied + $4,
    duplicates    = duplicates + $5,
    skipped       = skipped + $6,
    dead_lettered = dead_lettered - $4 - $5 - $6,
    updated_at    = now()
WHERE domain = $1 AND version = $2 AND log_id = $3
