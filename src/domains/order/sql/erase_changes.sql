-- The rows that report the deletion stay: readers that mirror addresses need them.
DELETE FROM address_changes
WHERE user_key = ANY ($1) AND deletion_type IS NULL
