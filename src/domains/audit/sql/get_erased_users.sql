-- Those of these users ($1) whose entries hold nothing personal any longer.
SELECT user_key
FROM deleted_users
WHERE user_key = ANY ($1) AND erase_from <= now()
