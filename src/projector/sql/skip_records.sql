-- The compare-and-set of partitions whose records don't concern the view, in one statement: moves the positions of the logs
-- ($4) whose epochs ($5) and positions ($6) are as they were claimed, and returns these logs. Of such records only their
-- number and the last one are kept. A row that another transaction holds is left out, so that the others don't wait.
WITH free AS (
    SELECT p.log_id, n.next_offset, n.stream_time, n.read, n.holes, n.last_offset, n.last_record
    FROM sightline.progress AS p
    JOIN unnest($4::integer[], $5::bigint[], $6::bigint[], $7::bigint[], $8::timestamptz[], $9::bigint[], $10::bigint[],
                $11::bigint[], $12::uuid[])
         AS n (log_id, epoch, claimed_offset, next_offset, stream_time, read, holes, last_offset, last_record)
        ON (p.log_id, p.epoch, p.next_offset) = (n.log_id, n.epoch, n.claimed_offset)
    WHERE p.domain = $1 AND p.version = $2
    FOR UPDATE OF p SKIP LOCKED
)
UPDATE sightline.progress AS p
SET next_offset  = n.next_offset,
    stream_time  = n.stream_time,
    read         = p.read + n.read,
    skipped      = p.skipped + n.read,
    holes        = p.holes + n.holes,
    last_offset  = coalesce(n.last_offset, p.last_offset),
    last_record  = coalesce(n.last_record, p.last_record),
    behind_since = NULL,
    code_version = greatest(p.code_version, $3),
    updated_at   = now()
FROM free AS n
WHERE p.domain = $1 AND p.version = $2 AND p.log_id = n.log_id
RETURNING p.log_id
