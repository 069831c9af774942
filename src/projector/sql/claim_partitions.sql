-- Raises the epochs of logs ($3), which fences their former owners; not for code ($4) that is older than what has folded there,
-- nor for other code than the rebuild was begun with, which is the work of one fold. The caller has locked the rows if they are
-- several.
UPDATE sightline.progress AS p
SET epoch = epoch + 1
WHERE domain = $1 AND version = $2 AND log_id = ANY ($3::integer[]) AND code_version <= $4
  AND NOT EXISTS (SELECT FROM sightline.views AS v
                  WHERE (v.domain, v.version) = (p.domain, p.version) AND v.state = 'building' AND v.code_version <> $4)
RETURNING log_id, epoch, next_offset, stream_time, failure, ready_offset, last_offset, last_record
