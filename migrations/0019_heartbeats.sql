-- Heartbeats: every two seconds a process writes one row for each version that it projects, however many partitions that has.
-- Element n of each array is of the same log.
CREATE TABLE sightline.heartbeats (
    domain              text               NOT NULL,
    version             integer            NOT NULL,
    instance            uuid               NOT NULL,
    seen_at             timestamptz        NOT NULL,
    log_ids             integer[]          NOT NULL,
    epochs              bigint[]           NOT NULL,
    -- The Kafka timestamps of the oldest records that are read but not applied.
    oldest_unapplied_at timestamptz[]      NOT NULL,
    -- Records per second, lately.
    rates               double precision[] NOT NULL,
    -- What holds the owner up at the moment (it goes on trying), else null.
    failures            text[]             NOT NULL,
    PRIMARY KEY (domain, version, instance)
) WITH (fillfactor = 50);

-- The owner of each log: of several heartbeats that name it, the one with the highest epoch. An epoch that the progress row has
-- not reached is from before a restore.
CREATE VIEW sightline.partition_owners AS
SELECT DISTINCT ON (h.domain, h.version, l.log_id)
       h.domain, h.version, l.log_id, h.instance, l.epoch, h.seen_at, l.oldest_unapplied_at, l.rate, l.failure
FROM sightline.heartbeats AS h
CROSS JOIN LATERAL unnest(h.log_ids, h.epochs, h.oldest_unapplied_at, h.rates, h.failures)
                AS l (log_id, epoch, oldest_unapplied_at, rate, failure)
JOIN sightline.progress AS p ON (p.domain, p.version, p.log_id) = (h.domain, h.version, l.log_id)
WHERE l.epoch <= p.epoch
ORDER BY h.domain, h.version, l.log_id, l.epoch DESC, h.seen_at DESC;

DROP TABLE sightline.owners;
