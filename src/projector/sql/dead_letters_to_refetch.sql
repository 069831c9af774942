-- The offsets, among the next dead letters as in dead_letters_to_retry.sql, of those whose value only the log has.
SELECT record_offset
FROM (
    SELECT record_offset, value IS NULL AND size <= $9 AS missing,
           row_number() OVER (ORDER BY record_offset) AS number,
           sum(key_and_headers_size + CASE WHEN size <= $9 THEN size ELSE 0 END) OVER (ORDER BY record_offset) AS bytes
    FROM (
        SELECT record_offset, size, key_and_headers_size, value
        FROM sightline.dead_letters
        WHERE domain = $1 AND version = $2 AND log_id = $3 AND state IN ('parked', 'retrying')
          AND (parks AND key_hash = ANY ($4) OR id = ANY ($5)) AND record_offset > $6
        ORDER BY record_offset
        LIMIT $7
    ) AS open
) AS next
WHERE missing AND (number = 1 OR bytes <= $8::bigint)
ORDER BY record_offset
