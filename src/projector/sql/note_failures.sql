UPDATE sightline.dead_letters AS letter
SET attempts = letter.attempts + 1, last_failed_at = now(), code_version = $5,
    reason = coalesce(failed.reason, letter.reason),
    field = CASE WHEN failed.reason IS NULL THEN letter.field ELSE failed.field END,
    class = CASE WHEN failed.reason IS NULL THEN letter.class ELSE failed.class END
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) AS failed (id, reason, field, class)
WHERE letter.id = failed.id
