-- The logs of these ids ($1), and how far their chains reach.
SELECT l.log_id AS "log_id!", l.topic AS "topic!", l.partition AS "partition!", c.sequence AS "sequence?", c.link AS "link?", c.key_id
FROM sightline.logs l
LEFT JOIN chains c USING (log_id)
WHERE l.log_id = ANY ($1)
