-- A log is one partition of one incarnation of a topic in one cluster. Topics of two clusters that give no topic ids have
-- the same identity, '-', so the cluster belongs to the key.
ALTER TABLE sightline.logs
    DROP CONSTRAINT logs_topic_topic_identity_partition_key,
    ADD UNIQUE (cluster_id, topic, topic_identity, partition);

-- As before, but older partitions are those of the same cluster.
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
              AND (f.cluster_id, f.topic_identity) = (l.cluster_id, l.topic_identity) AND f.partition < l.partition)
$$;
