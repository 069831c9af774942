-- The user of these keys ($4) was deleted at these offsets ($5): closes the dead letters of the keys before them, in this
-- log ($3) and in earlier logs, and erases their bytes.
UPDATE sightline.dead_letters AS letter
SET state = 'discarded', resolution = 'user_deleted', value = NULL, headers = NULL, record_key = NULL,
    resolved_at = now(), erased_at = now()
FROM unnest($4::uuid[], $5::bigint[]) AS closed (key_hash, record_offset)
WHERE letter.domain = $1 AND letter.version = $2 AND letter.key_hash = closed.key_hash
  AND (letter.log_id = $3 AND letter.record_offset < closed.record_offset
       OR letter.log_id IN (SELECT before FROM sightline.logs_before($1, $2, $3) AS before))
  AND letter.state IN ('parked', 'retrying')
