-- Coordinates and reason stay for good; the log may keep the bytes for longer. A closed dead letter loses its key and the key's
-- hash with its bytes; an open one parks the key. Some at a time, without waiting for rows that another transaction has
-- locked.
UPDATE sightline.dead_letters
SET value = NULL, headers = NULL, record_key = NULL, erased_at = now(),
    key_hash = CASE WHEN state IN ('parked', 'retrying') THEN key_hash END
WHERE id = ANY (ARRAY(
    SELECT id FROM sightline.dead_letters
    WHERE erased_at IS NULL AND first_failed_at < now() - make_interval(days => $1)
    ORDER BY first_failed_at
    LIMIT 500
    FOR UPDATE SKIP LOCKED))
