-- Discards a dead letter ($3) in every version that has one for its record, and stores the record's coordinates for
-- versions that reach it later. Raises the epochs of all, so that their owners read the discards again. The caller has
-- locked the progress rows.
WITH discarded AS (
    UPDATE sightline.dead_letters AS d
    SET state = 'discarded', resolution = $4, resolved_at = now(),
        -- A closed one without its bytes keeps no key.
        key_hash = CASE WHEN d.erased_at IS NULL THEN d.key_hash END
    FROM sightline.dead_letters AS chosen
    WHERE chosen.id = $3 AND chosen.state IN ('parked', 'retrying')
      AND d.domain = $1 AND d.log_id = $2 AND d.record_offset = chosen.record_offset
      AND d.state IN ('parked', 'retrying')
    RETURNING d.id, d.version, d.record_offset, chosen.key_hash, d.parks, d.reason, d.field, d.class
), kept AS (
    INSERT INTO sightline.discards (domain, log_id, record_offset, resolution, reason, field, class)
    SELECT $1, $2, record_offset, $4, reason, field, class FROM discarded WHERE id = $3
    ON CONFLICT (domain, log_id, record_offset) DO NOTHING
), fenced AS (
    UPDATE sightline.progress
    SET epoch = epoch + 1
    WHERE domain = $1 AND log_id = $2 AND EXISTS (SELECT FROM discarded)
)
SELECT version, record_offset,
       NOT EXISTS (
           SELECT FROM sightline.dead_letters AS before
           WHERE before.domain = $1 AND before.version = discarded.version AND before.log_id = $2
             AND before.key_hash = discarded.key_hash AND before.record_offset < discarded.record_offset
             AND before.state IN ('parked', 'retrying') AND before.parks AND discarded.parks
       ) AS "is_first!"
FROM discarded
