-- The chains of the version that is live, and how far those of the same logs reach in the version that becomes live, to whose tables
-- names lead.
SELECT f.log_id, f.sequence AS former_sequence, f.link AS former_link, c.sequence AS "sequence?", c.link AS "link?", c.key_id
FROM audit_live.chains f
LEFT JOIN chains c USING (log_id)
ORDER BY f.log_id
