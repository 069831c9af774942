-- A partition in which the version ($3) has not come as far as the live one ($2).
SELECT l.topic, l.partition, (live.next_offset - coalesce(other.next_offset, live.start_offset)) AS "behind!"
FROM sightline.progress live
JOIN sightline.logs l USING (log_id)
LEFT JOIN sightline.progress other ON other.domain = live.domain AND other.version = $3 AND other.log_id = live.log_id
WHERE live.domain = $1 AND live.version = $2
  AND (other.next_offset IS NULL OR other.next_offset < live.next_offset)
ORDER BY l.topic, l.partition
LIMIT 1
