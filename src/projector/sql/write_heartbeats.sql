-- Heartbeats of this process ($1), one for each version that it projects. Deleted are those of versions of which it has no
-- partitions any longer, those that are older than ten minutes, and those that lie ahead of the database's clock, which was
-- set back. Rows are written in key order, so that two processes can't deadlock. Returns the logs of which the database knows
-- less than the process: it was restored.
WITH logs AS (
    SELECT *
    FROM unnest($2::text[], $3::integer[], $4::integer[], $5::bigint[], $6::timestamptz[], $7::double precision[],
                $8::text[], $9::bigint[])
         AS l (domain, version, log_id, epoch, oldest_unapplied_at, rate, failure, next_offset)
), deleted AS (
    DELETE FROM sightline.heartbeats
    WHERE (domain, version, instance) IN (
        SELECT h.domain, h.version, h.instance
        FROM sightline.heartbeats AS h
        WHERE (h.instance = $1 OR h.seen_at NOT BETWEEN now() - interval '10 minutes' AND now() + interval '2 seconds')
          AND NOT (h.instance = $1 AND (h.domain, h.version) IN (SELECT l.domain, l.version FROM logs AS l))
        FOR UPDATE SKIP LOCKED)
), written AS (
    INSERT INTO sightline.heartbeats
           (domain, version, instance, seen_at, log_ids, epochs, oldest_unapplied_at, rates, failures)
    SELECT domain, version, $1, now(), array_agg(log_id ORDER BY log_id), array_agg(epoch ORDER BY log_id),
           array_agg(oldest_unapplied_at ORDER BY log_id), array_agg(rate ORDER BY log_id),
           array_agg(failure ORDER BY log_id)
    FROM logs
    GROUP BY domain, version
    ORDER BY domain, version
    ON CONFLICT (domain, version, instance) DO UPDATE
    SET seen_at = EXCLUDED.seen_at, log_ids = EXCLUDED.log_ids, epochs = EXCLUDED.epochs,
        oldest_unapplied_at = EXCLUDED.oldest_unapplied_at, rates = EXCLUDED.rates, failures = EXCLUDED.failures
)
SELECT l.domain AS "domain!", l.version AS "version!", l.log_id AS "log_id!"
FROM logs l
LEFT JOIN sightline.progress p USING (domain, version, log_id)
WHERE p.log_id IS NULL OR p.epoch < l.epoch OR p.next_offset < l.next_offset
