-- What is to be tried again, per version and log: keys and letters that stand alone which failed in an older release, and
-- keys whose first letter waits behind nothing any more, as somebody was interrupted who tried them. Some at a time, so
-- that each step is short. What is paused stands still.
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
      -- What waits for a log that comes before has its turn after that.
      AND NOT (parks AND EXISTS (
          SELECT FROM sightline.dead_letters AS e
          WHERE e.domain = $1 AND e.version = first.version AND e.key_hash = first.key_hash
            AND e.log_id IN (SELECT before FROM sightline.logs_before($1, first.version, first.log_id) AS before)
            AND e.state IN ('parked', 'retrying') AND e.parks))
      AND version NOT IN (SELECT version FROM sightline.views WHERE domain = $1 AND paused_at IS NOT NULL)
    ORDER BY version, log_id, id
    LIMIT 500
)
SELECT version AS "version!", log_id AS "log_id!",
       coalesce(array_agg(key_hash) FILTER (WHERE parks), '{}') AS "keys!",
       coalesce(array_agg(id) FILTER (WHERE NOT parks), '{}') AS "alone!"
FROM chosen
GROUP BY version, log_id
