-- Closes and erases all dead letters of deleted users' keys ($4) in a log ($3), as close_dead_letters.sql does.
UPDATE sightline.dead_letters AS letter
SET state = CASE WHEN letter.state IN ('parked', 'retrying') THEN 'discarded' ELSE letter.state END,
    resolution = CASE WHEN letter.state IN ('parked', 'retrying') THEN 'user_deleted' ELSE letter.resolution END,
    value = NULL, headers = NULL, record_key = NULL, key_hash = NULL,
    resolved_at = coalesce(letter.resolved_at, now()), erased_at = coalesce(letter.erased_at, now())
WHERE letter.domain = $1 AND letter.version = $2 AND letter.log_id = $3 AND letter.key_hash = ANY ($4)
