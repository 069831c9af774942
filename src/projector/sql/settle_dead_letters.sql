UPDATE sightline.dead_letters AS letter
SET state = 'applied', attempts = letter.attempts + 1, resolution = settled.resolution, resolved_at = now(),
    -- A closed one without its bytes keeps no key.
    key_hash = CASE WHEN letter.erased_at IS NULL THEN letter.key_hash END,
    applied_next_offset = CASE WHEN settled.sequence IS NOT NULL THEN $3::bigint END, applied_sequence = settled.sequence
FROM unnest($1::uuid[], $2::text[], $4::bigint[]) AS settled (id, resolution, sequence)
WHERE letter.id = settled.id
