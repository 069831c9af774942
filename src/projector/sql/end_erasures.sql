-- Deletes the notes of deletions after which nothing is left to erase.
DELETE FROM sightline.erasures AS e
WHERE e.domain = $1 AND e.deleted_at < now() - make_interval(secs => $2)
  AND NOT EXISTS (
      SELECT FROM sightline.dead_letters AS d
      WHERE d.domain = e.domain AND d.version = e.version AND d.key_hash = e.key_hash AND d.log_id <> e.log_id)
