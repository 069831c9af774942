-- The users of these keys ($4) were deleted at these offsets ($5) of a log ($3): closes the dead letters of the keys before them, in
-- this log and in earlier logs, and erases them and those that were closed before. A key that is kept, even as a hash, would
-- name the person.
UPDATE sightline.dead_letters AS letter
SET state = CASE WHEN letter.state IN ('parked', 'retrying') THEN 'discarded' ELSE letter.state END,
    resolution = CASE WHEN letter.state IN ('parked', 'retrying') THEN 'user_deleted' ELSE letter.resolution END,
    value = NULL, headers = NULL, record_key = NULL, key_hash = NULL,
    resolved_at = coalesce(letter.resolved_at, now()), erased_at = coalesce(letter.erased_at, now())
FROM unnest($4::uuid[], $5::bigint[]) AS deleted (key_hash, record_offset)
WHERE letter.domain = $1 AND letter.version = $2 AND letter.key_hash = deleted.key_hash
  AND (letter.log_id = $3 AND letter.record_offset < deleted.record_offset
       OR letter.log_id IN (SELECT before FROM sightline.logs_before($1, $2, $3) AS before))
