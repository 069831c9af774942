-- Users whose entries are to be erased now, those that have waited longest first.
SELECT user_key
FROM deleted_users
WHERE sweep_at IS NOT NULL AND sweep_at <= now()
ORDER BY sweep_at
LIMIT 500
