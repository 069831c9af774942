-- An owner who was superseded and does not know it yet has an older epoch: its word does not count.
-- In the order of the key, so that two processes can't deadlock.
INSERT INTO sightline.owners (domain, version, log_id, instance, epoch, seen_at, oldest_unapplied_at, rate, failure)
SELECT o.domain, o.version, o.log_id, $1, o.epoch, now(), o.oldest_unapplied_at, o.rate, o.failure
FROM unnest($2::text[], $3::integer[], $4::integer[], $5::bigint[], $6::timestamptz[], $7::double precision[], $8::text[])
     AS o (domain, version, log_id, epoch, oldest_unapplied_at, rate, failure)
ORDER BY o.domain, o.version, o.log_id
ON CONFLICT (domain, version, log_id) DO UPDATE
SET instance = EXCLUDED.instance, epoch = EXCLUDED.epoch, seen_at = EXCLUDED.seen_at,
    oldest_unapplied_at = EXCLUDED.oldest_unapplied_at, rate = EXCLUDED.rate, failure = EXCLUDED.failure
WHERE owners.epoch <= EXCLUDED.epoch
