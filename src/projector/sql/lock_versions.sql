-- In the order of the key, as everybody who takes several of these rows does.
SELECT log_id FROM sightline.progress
WHERE domain = $1 AND version = ANY ($2)
ORDER BY version, log_id
FOR UPDATE
