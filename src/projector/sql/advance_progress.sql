-- The "set" of compare-and-set. lock_progress.sql has locked the row.
UPDATE sightline.progress
SET next_offset   = $4,
    stream_time      = $5,
    read          = read + $6,
    applied       = applied + $7,
    duplicates    = duplicates + $8,
    skipped       = skipped + $9,
    dead_lettered = dead_lettered + $10,
    holes         = holes + $11,
    last_offset   = coalesce($12, last_offset),
    last_record   = coalesce($13, last_record),
    behind_since  = NULL,
    code_version  = greatest(code_version, $14),
    updated_at    = now()
WHERE domain = $1 AND version = $2 AND log_id = $3
