-- If the bytes are lost ($6), a dead letter that had a reason of its own keeps it. The caller of the retry gets the new one.
UPDATE sightline.dead_letters AS letter
SET attempts = letter.attempts + 1, last_failed_at = now(), code_version = $5, catalogue_version = $7,
    reason = CASE WHEN failed.stays THEN letter.reason ELSE failed.reason END,
    field = CASE WHEN failed.stays THEN letter.field ELSE failed.field END,
    class = CASE WHEN failed.stays THEN letter.class ELSE failed.class END,
    parks = letter.parks OR failed.parks AND letter.key_hash IS NOT NULL
FROM (
    SELECT f.*, f.reason = $6 AND d.class <> 'blocked' AS stays
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $8::boolean[]) AS f (id, reason, field, class, parks)
    JOIN sightline.dead_letters d USING (id)
) AS failed
WHERE letter.id = failed.id
