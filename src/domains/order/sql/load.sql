-- Customers to fold onto. Their revisions, not locks, keep two writers apart: a lock would write every row twice.
SELECT user_key, user_id, log_id, revision, state AS "state: Json<State>"
FROM customers
WHERE user_key = ANY ($1)
