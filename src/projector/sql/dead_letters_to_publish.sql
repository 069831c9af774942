-- Dead letters of the live version that were not published yet, in the order of their ids after $5, without those of the
-- topics $6: at most $2, and at most $3 bytes if keys and values are published ($4), but always one.
SELECT id, topic, partition, record_offset, record_key, value, event_type, reason, field, class
FROM (
    SELECT d.id, d.topic, d.partition, d.record_offset, CASE WHEN $4::boolean THEN d.record_key END AS record_key,
           CASE WHEN $4 THEN d.value END AS value, d.event_type, d.reason, d.field, d.class,
           row_number() OVER (ORDER BY d.id) AS number,
           sum(CASE WHEN $4 THEN d.size + coalesce(octet_length(d.record_key), 0) ELSE 0 END) OVER (ORDER BY d.id) AS bytes
    FROM (
        SELECT d.*, l.topic, l.partition
        FROM sightline.dead_letters d
        JOIN sightline.views v USING (domain, version)
        JOIN sightline.logs l USING (log_id)
        WHERE d.domain = $1 AND v.state = 'live' AND d.published_at IS NULL AND d.id > $5 AND l.topic <> ALL ($6::text[])
        ORDER BY d.id
        LIMIT $2
    ) AS d
) AS letters
WHERE number = 1 OR bytes <= $3::bigint
ORDER BY id
