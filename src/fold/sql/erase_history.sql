DELETE FROM user_history WHERE user_key = ANY ($1)
