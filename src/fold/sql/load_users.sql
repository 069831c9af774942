-- Rows to fold onto. Their revisions, not locks, keep two writers apart: a lock would write every row twice.
SELECT user_key, log_id, revision, state::text AS "state!"
FROM users
WHERE user_key = ANY ($1)
