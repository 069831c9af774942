-- Whether dead letters pile up, of those since the last resume. Counting stops at the limits.
SELECT (SELECT count(*) FROM (
            SELECT FROM sightline.dead_letters
            WHERE domain = $1 AND version = $2 AND log_id = $3 AND record_offset >= $4
              AND state IN ('parked', 'retrying') AND class <> 'blocked'
              AND first_failed_at > coalesce(v.resumed_at, '-infinity')
            LIMIT $5::bigint + 1) AS failed) > $5 AS "failed!",
       EXISTS (
            SELECT FROM unnest($6::uuid[]) AS k (key_hash)
            WHERE (SELECT count(*) FROM (
                       SELECT FROM sightline.dead_letters AS d
                       WHERE d.domain = $1 AND d.version = $2 AND d.log_id = $3 AND d.key_hash = k.key_hash
                         AND d.state IN ('parked', 'retrying') AND d.parks
                         AND d.first_failed_at > coalesce(v.resumed_at, '-infinity')
                       LIMIT $7::bigint + 1) AS behind) > $7) AS "behind!"
FROM sightline.views AS v
WHERE v.domain = $1 AND v.version = $2
