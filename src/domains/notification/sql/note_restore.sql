-- Stores how far ($2) an earlier state of the database had projected a partition ($1).
INSERT INTO notification.restores AS r (log_id, projected_before)
VALUES ($1, $2)
ON CONFLICT (log_id) DO UPDATE
SET projected_before = EXCLUDED.projected_before
WHERE r.projected_before < EXCLUDED.projected_before
