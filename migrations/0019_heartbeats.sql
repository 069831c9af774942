-- Who projects which logs: a row for each process and version, written every two seconds, so that heartbeats do not grow with
-- topics and partitions. Element n of each array is of the same log.
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
SELECT DISTINCT ON (named.domain, named.version, named.log_id) named.*
FROM (
    SELECT h.domain, h.version, l.log_id, h.instance, l.epoch, h.seen_at, l.oldest_unapplied_at, l.rate, l.failure
    FROM sightline.heartbeats AS h
    CROSS JOIN LATERAL unnest(h.log_ids, h.epochs, h.oldest_unapplied_at, h.rates, h.failures)
                    AS l (log_id, epoch, oldest_unapplied_at, rate, failure)
    UNION ALL
    -- Of processes of the former release.
    SELECT o.domain, o.version, o.log_id, o.instance, o.epoch, o.seen_at, o.oldest_unapplied_at, o.rate, o.failure
    FROM sightline.owners AS o
    WHERE o.instance NOT IN (SELECT instance FROM sightline.heartbeats)
) AS named
JOIN sightline.progress AS p USING (domain, version, log_id)
WHERE named.epoch <= p.epoch
ORDER BY named.domain, named.version, named.log_id, named.epoch DESC, named.seen_at DESC;

-- Processes of the former release read the table `owners`, so heartbeats are copied to it as that release writes its own. The
-- release after this one drops trigger, function and table, and the table's part of the view.
CREATE FUNCTION sightline.copy_heartbeat() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO sightline.owners AS former (domain, version, log_id, instance, epoch, seen_at, oldest_unapplied_at, rate, failure)
    SELECT NEW.domain, NEW.version, l.log_id, NEW.instance, l.epoch, NEW.seen_at, l.oldest_unapplied_at, l.rate, l.failure
    FROM unnest(NEW.log_ids, NEW.epochs, NEW.oldest_unapplied_at, NEW.rates, NEW.failures)
         AS l (log_id, epoch, oldest_unapplied_at, rate, failure)
    JOIN sightline.progress AS p ON (p.domain, p.version, p.log_id) = (NEW.domain, NEW.version, l.log_id)
    WHERE l.epoch <= p.epoch
    ORDER BY l.log_id
    ON CONFLICT (domain, version, log_id) DO UPDATE
    SET instance = EXCLUDED.instance, epoch = EXCLUDED.epoch, seen_at = EXCLUDED.seen_at,
        oldest_unapplied_at = EXCLUDED.oldest_unapplied_at, rate = EXCLUDED.rate, failure = EXCLUDED.failure
    WHERE former.epoch <= EXCLUDED.epoch
       OR former.epoch > (SELECT p.epoch FROM sightline.progress AS p
                          WHERE (p.domain, p.version, p.log_id) = (former.domain, former.version, former.log_id));
    RETURN NULL;
END $$;

CREATE TRIGGER copy_heartbeat AFTER INSERT OR UPDATE ON sightline.heartbeats
FOR EACH ROW EXECUTE FUNCTION sightline.copy_heartbeat();
