-- All entries of these users ($1) are erased.
UPDATE deleted_users SET sweep_at = NULL WHERE user_key = ANY ($1)
