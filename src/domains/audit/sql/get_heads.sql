-- How far the chain of each log reaches, how many events of it were applied, and its last entry, in one snapshot.
SELECT v.version AS "version!", l.log_id AS "log_id!", l.topic AS "topic!", l.partition AS "partition!", c.sequence AS "sequence?",
       c.link AS "link?", c.key_id, p.applied AS "applied!", e.sequence AS "last_sequence?", e.record_offset AS "last_offset?",
       e.event_id AS "last_event_id?"
FROM audit_live.view_version v
JOIN sightline.progress p ON p.domain = 'audit' AND p.version = v.version
JOIN sightline.logs l USING (log_id)
LEFT JOIN audit_live.chains c USING (log_id)
LEFT JOIN LATERAL (
    SELECT e.sequence, e.record_offset, e.event_id
    FROM audit_live.entries e
    WHERE e.log_id = p.log_id
    ORDER BY e.sequence DESC
    LIMIT 1
) e ON true
ORDER BY l.topic, l.partition, l.log_id
