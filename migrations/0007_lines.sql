-- Letters are listed by key, and those that are open.
CREATE INDEX dead_letters_listed_by_key ON sightline.dead_letters (domain, version, key_hash, id);
CREATE INDEX dead_letters_listed_open ON sightline.dead_letters (domain, version, id) WHERE state IN ('parked', 'retrying');

-- A heartbeat that comes late leaves nothing of a version that is gone.
DELETE FROM sightline.owners o
WHERE NOT EXISTS (SELECT FROM sightline.views v WHERE v.domain = o.domain AND v.version = o.version);
ALTER TABLE sightline.owners ADD FOREIGN KEY (domain, version) REFERENCES sightline.views ON DELETE CASCADE;

-- The logs that come before another one of the same topic: the partitions that were there before it was added, and those of
-- an incarnation that has ended. A key that moved from there is parked here while it has open letters there.
CREATE FUNCTION sightline.logs_before(p_domain text, p_version integer, p_log_id integer)
RETURNS SETOF integer LANGUAGE sql STABLE AS $$
    SELECT former.log_id
    FROM sightline.progress AS p
    JOIN sightline.logs AS l ON l.log_id = p.log_id
    JOIN sightline.logs AS f ON f.topic = l.topic AND f.log_id <> l.log_id
    JOIN sightline.progress AS former ON (former.domain, former.version, former.log_id) = (p.domain, p.version, f.log_id)
    WHERE p.domain = p_domain AND p.version = p_version AND p.log_id = p_log_id
      AND (former.ended_at IS NOT NULL AND (p.ended_at IS NULL OR former.ended_at < p.ended_at)
           OR p.held_until ? f.partition::text AND f.topic_identity = l.topic_identity)
$$;
