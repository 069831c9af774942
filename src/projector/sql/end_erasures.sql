-- Deletes the notes of deletions that are so old ($2) that nothing can be added any longer that is theirs ($3, as
-- erasures_due.sql has it), and after which nothing is left to erase.
DELETE FROM sightline.erasures AS e
WHERE e.domain = $1 AND e.deleted_at < now() - make_interval(secs => $2)
  AND NOT EXISTS (
      SELECT FROM sightline.dead_letters AS d
      WHERE d.domain = e.domain AND d.version = e.version AND d.key_hash = e.key_hash AND d.log_id <> e.log_id
        AND d.first_failed_at < e.deleted_at + make_interval(secs => $3))
