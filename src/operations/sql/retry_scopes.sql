-- What is tried together of a domain's ($1) shown version: keys, and letters that stand alone, of which an open letter
-- has this id ($2), this key ($3) and this reason ($4), as far as these are not null; from behind a place on ($5, $6).
-- Each with the number of open letters that are tried with it, whatever their reasons.
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
