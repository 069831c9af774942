-- Adds accounts ($2) to windows ($1), and returns the window of each that is new there.
INSERT INTO stuffed_accounts (window_key, account_hash)
SELECT n.window_key, n.account_hash
FROM unnest($1::uuid[], $2::uuid[]) AS n (window_key, account_hash)
ORDER BY n.window_key, n.account_hash
ON CONFLICT DO NOTHING
RETURNING window_key
