-- What a partition that was added later waits for is kept with the partition, for all domains and versions: older records of
-- a key that moved to it may still arrive in the older partitions for a while, until all producers know of it.
ALTER TABLE sightline.logs
    -- When the partition was first seen, if other partitions of the topic were known before it; else null. By the
    -- database's clock.
    ADD added_at  timestamptz,
    -- The offsets that the older partitions have to reach first: {"<log_id>": <offset>, …}. Null until the settle time is over.
    ADD waits_for jsonb,
    ADD CONSTRAINT only_an_added_log_waits CHECK (waits_for IS NULL OR added_at IS NOT NULL);

-- Until now each progress row kept what its partition waits for, as of when that domain first saw it: {"<partition>": …}.
-- The largest offset of all domains and versions is right for each of them.
UPDATE sightline.logs AS l
SET added_at = now(), waits_for = former.waits_for
FROM (
    SELECT log_id, jsonb_object_agg(older, until) AS waits_for
    FROM (
        SELECT added.log_id, older.log_id AS older, max(waits.until::bigint) AS until
        FROM sightline.progress p
        JOIN sightline.logs added USING (log_id)
        CROSS JOIN jsonb_each_text(p.waits_for) AS waits (partition, until)
        JOIN sightline.logs older
            ON older.topic = added.topic AND older.topic_identity = added.topic_identity
           AND older.partition::text = waits.partition
        GROUP BY added.log_id, older.log_id
    ) AS each
    GROUP BY log_id
) AS former
WHERE former.log_id = l.log_id;

-- The logs that come before another one of the same topic: the partitions that are older than an added one, and those of an
-- incarnation that has ended. A key that moved from there is parked here while it has open dead letters there.
CREATE OR REPLACE FUNCTION sightline.logs_before(p_domain text, p_version integer, p_log_id integer)
RETURNS SETOF integer LANGUAGE sql STABLE AS $$
    SELECT former.log_id
    FROM sightline.progress AS p
    JOIN sightline.logs AS l ON l.log_id = p.log_id
    JOIN sightline.logs AS f ON f.topic = l.topic AND f.log_id <> l.log_id
    JOIN sightline.progress AS former ON (former.domain, former.version, former.log_id) = (p.domain, p.version, f.log_id)
    WHERE p.domain = p_domain AND p.version = p_version AND p.log_id = p_log_id
      AND (former.ended_at IS NOT NULL AND (p.ended_at IS NULL OR former.ended_at < p.ended_at)
           OR l.waits_for ? f.log_id::text
           OR l.waits_for IS NULL AND l.added_at IS NOT NULL
              AND f.topic_identity = l.topic_identity AND f.partition < l.partition)
$$;

ALTER TABLE sightline.progress DROP COLUMN waits_for;

-- Whether a version may not project a log yet, because its partition was added and the version has not come far enough in
-- the older ones. A version that has begun to project the log has come far enough once, and so for good.
CREATE FUNCTION sightline.waits_for_partitions(p_domain text, p_version integer, p_log_id integer)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT l.added_at IS NOT NULL AND p.next_offset = p.start_offset
       AND (l.waits_for IS NULL OR EXISTS (
               SELECT FROM jsonb_each_text(l.waits_for) AS older (log_id, until)
               LEFT JOIN sightline.progress AS o
                   ON (o.domain, o.version, o.log_id) = (p.domain, p.version, older.log_id::integer)
               WHERE o.next_offset IS NULL OR o.next_offset < older.until::bigint))
    FROM sightline.progress AS p
    JOIN sightline.logs AS l USING (log_id)
    WHERE p.domain = p_domain AND p.version = p_version AND p.log_id = p_log_id
$$;
