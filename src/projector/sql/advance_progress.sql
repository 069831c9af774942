-- The "set" of compare-and-set. lock_progress.sql has locked the rows.
UPDATE sightline.progress AS p
SET next_offset   = n.next_offset,
    stream_time   = n.stream_time,
    read          = p.read + n.read,
    applied       = p.applied + n.applied,
    duplicates    = p.duplicates + n.duplicates,
    skipped       = p.skipped + n.skipped,
    dead_lettered = p.dead_lettered + n.dead_lettered,
    holes         = p.holes + n.holes,
    last_offset   = coalesce(n.last_offset, p.last_offset),
    last_record   = coalesce(n.last_record, p.last_record),
    behind_since  = NULL,
    code_version  = greatest(p.code_version, $3),
    updated_at    = now()
FROM unnest($4::integer[], $5::bigint[], $6::timestamptz[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[],
            $11::bigint[], $12::bigint[], $13::bigint[], $14::uuid[])
     AS n (log_id, next_offset, stream_time, read, applied, duplicates, skipped, dead_lettered, holes, last_offset, last_record)
WHERE p.domain = $1 AND p.version = $2 AND p.log_id = n.log_id
