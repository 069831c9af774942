-- Marks the view as ready once it has reached, in every partition, the end that was there when it began, and has begun to read
-- every topic ($3). The caller has locked the row.
UPDATE view_version
SET ready = true
WHERE NOT EXISTS (
      SELECT FROM sightline.progress AS p
      WHERE p.domain = $1 AND p.version = $2 AND p.ended_at IS NULL AND p.next_offset < p.ready_offset)
  AND NOT EXISTS (
      SELECT FROM unnest($3::text[]) AS wanted (name)
      WHERE NOT EXISTS (SELECT FROM sightline.progress AS p JOIN sightline.logs AS l USING (log_id)
                        WHERE p.domain = $1 AND p.version = $2 AND p.ended_at IS NULL AND l.topic = wanted.name))
