-- Heartbeats of this process ($1). One with an older epoch than the stored row is of a superseded owner, and one with an
-- epoch that the progress row has not reached is from before a restore: neither is written. Rows are written in key order,
-- so that two processes can't deadlock. Returns the logs of which the database knows less than the process: it was
-- restored.
WITH owners AS (
    SELECT *
    FROM unnest($2::text[], $3::integer[], $4::integer[], $5::bigint[], $6::timestamptz[], $7::double precision[],
                $8::text[], $9::bigint[])
         AS o (domain, version, log_id, epoch, oldest_unapplied_at, rate, failure, next_offset)
), written AS (
    INSERT INTO sightline.owners AS former (domain, version, log_id, instance, epoch, seen_at, oldest_unapplied_at, rate, failure)
    SELECT o.domain, o.version, o.log_id, $1, o.epoch, now(), o.oldest_unapplied_at, o.rate, o.failure
    FROM owners o
    JOIN sightline.progress p USING (domain, version, log_id)
    WHERE o.epoch <= p.epoch
    ORDER BY o.domain, o.version, o.log_id
    ON CONFLICT (domain, version, log_id) DO UPDATE
    SET instance = EXCLUDED.instance, epoch = EXCLUDED.epoch, seen_at = EXCLUDED.seen_at,
        oldest_unapplied_at = EXCLUDED.oldest_unapplied_at, rate = EXCLUDED.rate, failure = EXCLUDED.failure
    WHERE former.epoch <= EXCLUDED.epoch
       OR former.epoch > (SELECT p.epoch FROM sightline.progress p
                          WHERE (p.domain, p.version, p.log_id) = (former.domain, former.version, former.log_id))
)
SELECT o.domain AS "domain!", o.version AS "version!", o.log_id AS "log_id!"
FROM owners o
LEFT JOIN sightline.progress p USING (domain, version, log_id)
WHERE p.log_id IS NULL OR p.epoch < o.epoch OR p.next_offset < o.next_offset
