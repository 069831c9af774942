-- Closes and erases the dead letters of deleted users' keys ($4) in a log ($3) that were added until the times ($5), as
-- close_dead_letters.sql does.
UPDATE sightline.dead_letters AS letter
SET state = CASE WHEN letter.state IN ('parked', 'retrying') THEN 'discarded' ELSE letter.state END,
    resolution = CASE WHEN letter.state IN ('parked', 'retrying') THEN 'user_deleted' ELSE letter.resolution END,
    value = NULL, headers = NULL, record_key = NULL, key_hash = NULL,
    resolved_at = coalesce(letter.resolved_at, now()), erased_at = coalesce(letter.erased_at, now())
FROM unnest($4::uuid[], $5::timestamptz[]) AS deleted (key_hash, until)
WHERE letter.domain = $1 AND letter.version = $2 AND letter.log_id = $3 AND letter.key_hash = deleted.key_hash
  AND letter.first_failed_at < deleted.until
