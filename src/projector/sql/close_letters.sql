-- The user of these keys was deleted: what was parked for them is nobody's any more, its bytes least of all.
UPDATE sightline.dead_letters
SET state = 'discarded', resolution = 'user_deleted', value = NULL, headers = NULL, record_key = NULL, last_failed_at = now()
WHERE domain = $1 AND version = $2 AND log_id = $3 AND key_hash = ANY ($4) AND state IN ('parked', 'retrying')
