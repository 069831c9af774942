-- Notes that these users ($1) were deleted at these times ($2), for good ($3) or with a retention of so many days ($4), and returns
-- those whose entries are to be erased now. What is to be erased is swept once more, because another transaction may be about to
-- write an entry of the user.
INSERT INTO deleted_users AS d (user_key, erase_from, sweep_at)
SELECT n.user_key, e.erase_from, greatest(e.erase_from, now())
FROM unnest($1::uuid[], $2::timestamptz[], $3::boolean[]) AS n (user_key, deleted_at, is_hard)
CROSS JOIN LATERAL (
    SELECT CASE WHEN n.is_hard THEN '-infinity' ELSE n.deleted_at + $4::integer * interval '24 hours' END AS erase_from
) e
ORDER BY n.user_key
ON CONFLICT (user_key) DO UPDATE
    SET erase_from = least(d.erase_from, excluded.erase_from),
        sweep_at = CASE WHEN excluded.erase_from < d.erase_from THEN excluded.sweep_at ELSE d.sweep_at END
RETURNING CASE WHEN erase_from <= now() AND sweep_at IS NOT NULL THEN user_key END AS "user_key"
