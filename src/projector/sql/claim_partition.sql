-- Raises the epoch, which fences the former owner; not for code that is older ($4) than what has folded here.
UPDATE sightline.progress
SET epoch = epoch + 1
WHERE domain = $1 AND version = $2 AND log_id = $3 AND code_version <= $4
RETURNING epoch, next_offset, stream_time, failure, ready_offset, last_offset, last_record
