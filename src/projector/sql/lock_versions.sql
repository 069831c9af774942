-- In key order, as all transactions that lock several of these rows.
SELECT log_id FROM sightline.progress
WHERE domain = $1 AND version = ANY ($2)
ORDER BY version, log_id
FOR UPDATE
