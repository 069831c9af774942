-- Rows are written in the order of their keys, so that two writers can't deadlock. A row is left as
-- it is if its revision is not the one that was folded onto: its key is missing from the result,
-- and the caller folds again.
INSERT INTO users AS c (user_key, user_id, log_id, logs, revision, state)
SELECT n.user_key, n.user_id, n.log_id, $4, n.revision, n.state
FROM unnest($1::uuid[], $2::text[], $3::integer[], $5::bigint[], $6::text[]) AS n (user_key, user_id, log_id, revision, state)
ORDER BY n.user_key
ON CONFLICT (user_key) DO UPDATE
SET log_id = EXCLUDED.log_id, logs = EXCLUDED.logs, revision = EXCLUDED.revision, state = EXCLUDED.state
WHERE c.revision = EXCLUDED.revision - 1
RETURNING user_key
