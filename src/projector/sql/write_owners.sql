-- An owner who was superseded and does not know it yet has an older epoch: its word does not count, nor does that of
-- one whose version is gone, or who knows an epoch that the database has not had: it was restored. In the order of the key, so that two processes can't deadlock. Returned are those who know
-- more than the database, which was restored to an earlier state then.
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
