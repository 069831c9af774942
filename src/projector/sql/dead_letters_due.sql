-- What maintenance has to retry, per version and log: keys and single dead letters that an older release gave up, and keys
-- whose first dead letter waits behind nothing because a retry was interrupted. At most 500 at a time, so that each round
-- is short; none of a paused version.
WITH first AS (
    (SELECT DISTINCT ON (version, log_id, key_hash) version, log_id, key_hash, id, parks, class, code_version
     FROM sightline.dead_letters
     WHERE domain = $1 AND state IN ('parked', 'retrying') AND parks
     ORDER BY version, log_id, key_hash, record_offset)
    UNION ALL
    SELECT version, log_id, key_hash, id, parks, class, code_version
    FROM sightline.dead_letters
    WHERE domain = $1 AND state IN ('parked', 'retrying') AND NOT parks
), chosen AS (
    SELECT * FROM first
    WHERE (class = 'blocked' OR code_version < $2)
      -- Keys that wait for an earlier log come after it.
      AND NOT (parks AND EXISTS (
          SELECT FROM sightline.dead_letters AS e
          WHERE e.domain = $1 AND e.version = first.version AND e.key_hash = first.key_hash
            AND e.log_id IN (SELECT before FROM sightline.logs_before($1, first.version, first.log_id) AS before)
            AND e.state IN ('parked', 'retrying') AND e.parks))
      AND version NOT IN (SELECT version FROM sightline.views WHERE domain = $1 AND (paused_at IS NOT NULL OR state = 'dropped'))
    ORDER BY version, log_id, id
    LIMIT 500
)
SELECT version AS "version!", log_id AS "log_id!",
       coalesce(array_agg(key_hash) FILTER (WHERE parks), '{}') AS "keys!",
       coalesce(array_agg(id) FILTER (WHERE NOT parks), '{}') AS "singles!"
FROM chosen
GROUP BY version, log_id
