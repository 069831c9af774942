-- The compare-and-set: moves the logs ($6) whose epochs ($7) and positions ($8) are as they were claimed, and returns them; nothing
-- is written of the others. The first statement of a transaction whose batches were judged before it, else the last one, after
-- lock_progress.sql. As that one, it does not wait for a row that another transaction holds, and sets how long ($5) the
-- transaction of one partition waits for any other lock.
WITH free AS (
    SELECT n.*, set_config('search_path', $4, true) AS search_path,
           CASE WHEN cardinality($6) = 1 THEN set_config('lock_timeout', $5, true) END AS lock_timeout
    FROM sightline.progress AS p
    JOIN unnest($6::integer[], $7::bigint[], $8::bigint[], $9::bigint[], $10::timestamptz[], $11::bigint[], $12::bigint[],
                $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[], $18::uuid[])
         AS n (log_id, epoch, claimed_offset, next_offset, stream_time, read, applied, duplicates, skipped, dead_lettered, holes,
               last_offset, last_record)
        ON (p.log_id, p.epoch, p.next_offset) = (n.log_id, n.epoch, n.claimed_offset)
    WHERE p.domain = $1 AND p.version = $2
    FOR UPDATE OF p SKIP LOCKED
)
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
FROM free AS n
WHERE p.domain = $1 AND p.version = $2 AND p.log_id = n.log_id
RETURNING p.log_id
