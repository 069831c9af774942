-- The caller inserts again what remains of these rows.
DELETE FROM user_history
WHERE user_key = ANY ($1)
RETURNING user_key, revision, sequence, occurred_at, log_id, record_offset, fact::text AS "fact!"
