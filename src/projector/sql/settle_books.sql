-- Letters that are through move to where they would have been counted without having been letters.
UPDATE sightline.progress
SET applied       = applied + $4,
    duplicates    = duplicates + $5,
    skipped       = skipped + $6,
    dead_lettered = dead_lettered - $4 - $5 - $6,
    updated_at    = now()
WHERE domain = $1 AND version = $2 AND log_id = $3
