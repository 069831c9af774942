-- The rows to fold onto. Two writers of a row are kept apart by its revision: locking it would
-- write it twice.
SELECT user_key, user_id, log_id, revision, state
FROM users
WHERE user_key = ANY ($1)
