-- Raises the epoch, which fences the former owner.
UPDATE sightline.progress
SET epoch = epoch + 1
WHERE domain = $1 AND version = $2 AND log_id = $3
RETURNING epoch, next_offset, stream_time, failure, ready_offset, last_offset, last_record
