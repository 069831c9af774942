-- The "compare" of compare-and-set: locks the logs ($3) whose epochs ($4) and positions ($5) are as they were claimed, and
-- returns them; nothing is written of the others. It does not wait for a row that another transaction holds, such as a retry:
-- the other partitions would wait with it. The transaction of one partition waits for so long ($7) for any other lock.
SELECT p.log_id, set_config('search_path', $6, true) AS search_path,
       CASE WHEN cardinality($3) = 1 THEN set_config('lock_timeout', $7, true) END AS lock_timeout
FROM sightline.progress AS p
JOIN unnest($3::integer[], $4::bigint[], $5::bigint[]) AS claimed (log_id, epoch, next_offset)
    ON (p.log_id, p.epoch, p.next_offset) = (claimed.log_id, claimed.epoch, claimed.next_offset)
WHERE p.domain = $1 AND p.version = $2
FOR UPDATE OF p SKIP LOCKED
