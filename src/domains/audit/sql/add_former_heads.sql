-- Notes where the chains of the version that becomes live go on with the heads of the former version ($1), which is still live.
INSERT INTO audit.former_heads (version, log_id, sequence, former_version, former_sequence, former_link)
SELECT v.version, f.log_id, c.sequence, $1, f.sequence, f.link
FROM view_version v
CROSS JOIN audit_live.chains f
JOIN chains c USING (log_id)
