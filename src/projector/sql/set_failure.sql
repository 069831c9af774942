-- Of the logs ($3) whose rows still have the epochs ($4) under which the failure was found: a superseded owner writes none.
UPDATE sightline.progress p
SET failure = $5
FROM unnest($3::integer[], $4::bigint[]) AS found (log_id, epoch)
WHERE p.domain = $1 AND p.version = $2 AND p.log_id = found.log_id AND p.epoch = found.epoch
  AND p.ended_at IS NULL AND p.failure IS DISTINCT FROM $5
