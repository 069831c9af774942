-- The next open dead letters of some keys ($4) and some single ones ($5), in log order: at most $7, and at most $8 bytes,
-- of keys, headers and values, but always one. Values longer than $9 are not returned, and do not count. A single one waits
-- where an earlier one of the log parks its key, unless that key is retried, too.
WITH next AS (
    SELECT id, row_number() OVER (ORDER BY record_offset) AS number,
           sum(key_and_headers_size + CASE WHEN size <= $9 THEN size ELSE 0 END) OVER (ORDER BY record_offset) AS bytes
    FROM (
        SELECT id, record_offset, size, key_and_headers_size
        FROM sightline.dead_letters
        WHERE domain = $1 AND version = $2 AND log_id = $3 AND state IN ('parked', 'retrying')
          AND (parks AND key_hash = ANY ($4) OR id = ANY ($5)) AND record_offset > $6
        ORDER BY record_offset
        LIMIT $7::bigint + 1
    ) AS open
), chosen AS (
    SELECT id FROM next WHERE number = 1 OR number <= $7 AND bytes <= $8::bigint
)
SELECT id, record_offset, record_time, stream_time, record_key, key_hash, parks, size, headers,
       NOT parks AND EXISTS (
           SELECT FROM sightline.dead_letters AS before
           WHERE before.domain = $1 AND before.version = $2 AND before.log_id = $3 AND before.key_hash = letter.key_hash
             AND before.record_offset < letter.record_offset AND before.state IN ('parked', 'retrying') AND before.parks
             AND before.key_hash <> ALL ($4)
       ) AS "waits!",
       CASE WHEN size <= $9 THEN value END AS value,
       (SELECT count(*) FROM next) > (SELECT count(*) FROM chosen) AS "more!"
FROM sightline.dead_letters AS letter
JOIN chosen USING (id)
ORDER BY record_offset
FOR UPDATE OF letter
