-- Marks dead letters of a version ($3) as published if those of another one ($2) for the same records are.
UPDATE sightline.dead_letters AS there
SET published_at = here.published_at
FROM sightline.dead_letters AS here
WHERE here.domain = $1 AND here.version = $2 AND here.published_at IS NOT NULL
  AND there.domain = $1 AND there.version = $3 AND there.published_at IS NULL
  AND there.log_id = here.log_id AND there.record_offset = here.record_offset
