-- What maintenance has to retry, per version and log: keys and single dead letters that an older release gave up, by its code
-- ($2) or, of the class "schema", by its catalogue of types ($3); and what an interrupted retry left: dead letters that are
-- marked, and keys whose first one waits behind nothing. At most 500 at a time, so that each round is short, chosen at
-- random, so that those that can't be retried now (Kafka does not give their records) don't keep others waiting. None of
-- a paused version. In a rolling deploy a retry must not take a partition away from the older code that projects it, so each
-- process ($4) retries those of its own partitions; any process those of a topic that was created again.
WITH first AS (
    (SELECT DISTINCT ON (version, log_id, key_hash) version, log_id, key_hash, id, parks, class, state, code_version, catalogue_version
     FROM sightline.dead_letters
     WHERE domain = $1 AND state IN ('parked', 'retrying') AND parks
     ORDER BY version, log_id, key_hash, record_offset)
    UNION ALL
    SELECT version, log_id, key_hash, id, parks, class, state, code_version, catalogue_version
    FROM sightline.dead_letters
    WHERE domain = $1 AND state IN ('parked', 'retrying') AND NOT parks
), chosen AS (
    SELECT * FROM first
    WHERE (class = 'blocked' OR state = 'retrying' OR code_version < $2 OR class = 'schema' AND catalogue_version < $3)
      -- Keys that wait for an earlier log come after it.
      AND NOT (parks AND EXISTS (
          SELECT FROM sightline.dead_letters AS e
          WHERE e.domain = $1 AND e.version = first.version AND e.key_hash = first.key_hash
            AND e.log_id IN (SELECT before FROM sightline.logs_before($1, first.version, first.log_id) AS before)
            AND e.state IN ('parked', 'retrying') AND e.parks))
      AND EXISTS (
          SELECT FROM sightline.views AS v
          JOIN sightline.progress AS p USING (domain, version)
          WHERE v.domain = $1 AND v.version = first.version AND p.log_id = first.log_id
            AND v.paused_at IS NULL AND v.state <> 'dropped' AND p.code_version <= $2
            -- A rebuild is the work of one fold.
            AND NOT (v.state = 'building' AND v.code_version < $2)
            AND (p.ended_at IS NOT NULL
                 OR EXISTS (SELECT FROM sightline.partition_owners AS o
                            WHERE (o.domain, o.version, o.log_id, o.instance) = (p.domain, p.version, p.log_id, $4))))
    ORDER BY random()
    LIMIT 500
)
SELECT version AS "version!", log_id AS "log_id!",
       coalesce(array_agg(key_hash) FILTER (WHERE parks), '{}') AS "keys!",
       coalesce(array_agg(id) FILTER (WHERE NOT parks), '{}') AS "singles!"
FROM chosen
GROUP BY version, log_id
