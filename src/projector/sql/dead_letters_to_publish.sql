-- Dead letters of the live version that were not published yet: at most $2, and at most $3 bytes if keys and values are
-- published ($4), but always one.
SELECT id, topic, partition, record_offset, record_key, value, event_type, reason, field, class
FROM (
    SELECT d.id, l.topic, l.partition, d.record_offset, CASE WHEN $4::boolean THEN d.record_key END AS record_key,
           CASE WHEN $4 THEN d.value END AS value, d.event_type, d.reason, d.field, d.class,
           row_number() OVER (ORDER BY d.id) AS number,
           sum(CASE WHEN $4 THEN d.size ELSE 0 END) OVER (ORDER BY d.id) AS bytes
    FROM (
        SELECT d.*
        FROM sightline.dead_letters d
        JOIN sightline.views v USING (domain, version)
        WHERE d.domain = $1 AND v.state = 'live' AND d.published_at IS NULL
        ORDER BY d.id
        LIMIT $2
    ) AS d
    JOIN sightline.logs l USING (log_id)
) AS letters
WHERE number = 1 OR bytes <= $3::bigint
ORDER BY id
