-- Raises the epoch, which fences the former owner; not for code ($4) that is older than what has folded here, nor for other
-- code than the rebuild was begun with, which is the work of one fold.
UPDATE sightline.progress AS p
SET epoch = epoch + 1
WHERE domain = $1 AND version = $2 AND log_id = $3 AND code_version <= $4
  AND NOT EXISTS (SELECT FROM sightline.views AS v
                  WHERE (v.domain, v.version) = (p.domain, p.version) AND v.state = 'building' AND v.code_version <> $4)
RETURNING epoch, next_offset, stream_time, failure, ready_offset, last_offset, last_record
