-- What can be retried of a domain ($1) in the version that is shown: keys, and single dead letters
-- (they block no key), of which an open dead letter has the id $2, the key $3 and the reason $4
-- (null matches all). They are ordered by log and first offset, and begin after the position ($5,
-- $6) where it is not null. Each with the number of open dead letters that are retried with it.
SELECT s.version AS "version!", s.log_id AS "log_id!", s.first_offset AS "first_offset!", s.key_hash, s.id,
       CASE WHEN s.key_hash IS NULL THEN 1 ELSE (
           SELECT count(*) FROM sightline.dead_letters d
           WHERE d.domain = $1 AND d.version = s.version AND d.log_id = s.log_id AND d.key_hash = s.key_hash
             AND d.parks AND d.state IN ('parked', 'retrying')
       ) END AS "dead_letters!"
FROM (
    SELECT d.version, d.log_id, min(d.record_offset) AS first_offset,
           CASE WHEN d.parks THEN d.key_hash END AS key_hash,
           CASE WHEN NOT d.parks THEN d.id END AS id
    FROM sightline.shown_views shown
    JOIN sightline.dead_letters d USING (domain, version)
    WHERE shown.domain = $1 AND d.state IN ('parked', 'retrying')
      AND ($2::uuid IS NULL OR d.id = $2)
      AND ($3::uuid IS NULL OR d.key_hash = $3)
      AND ($4::text IS NULL OR d.reason = $4)
    GROUP BY d.version, d.log_id, CASE WHEN d.parks THEN d.key_hash END, CASE WHEN NOT d.parks THEN d.id END
    HAVING ($5::integer IS NULL OR (d.log_id, min(d.record_offset)) > ($5, $6::bigint))
    ORDER BY d.log_id, min(d.record_offset)
    LIMIT $7
) s
ORDER BY s.log_id, s.first_offset
