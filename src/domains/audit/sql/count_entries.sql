-- How many entries each of several keys has ($1 to $4: user, IP address, role, actor; null where there is none), of these actions
-- ($5) and in this time ($6 to $7), up to 1,000: which of their indexes to read.
SELECT ARRAY[u.entries, i.entries, r.entries, a.entries + o.entries] AS "entries!"
FROM audit_live.view_version v
CROSS JOIN LATERAL (
    SELECT count(*) AS entries
    FROM (SELECT FROM audit_live.entries
          WHERE user_key = $1 AND action = ANY ($5) AND occurred_at >= coalesce($6::timestamptz, '-infinity')
            AND occurred_at < coalesce($7::timestamptz, 'infinity')
          LIMIT 1000) e
) u
CROSS JOIN LATERAL (
    SELECT count(*) AS entries
    FROM (SELECT FROM audit_live.entries
          WHERE actor_key = $4 AND action = ANY ($5) AND occurred_at >= coalesce($6::timestamptz, '-infinity')
            AND occurred_at < coalesce($7::timestamptz, 'infinity')
          LIMIT 1000) e
) a
CROSS JOIN LATERAL (
    SELECT count(*) AS entries
    FROM (SELECT FROM audit_live.entries
          WHERE user_key = $4 AND action = ANY ($5) AND occurred_at >= coalesce($6::timestamptz, '-infinity')
            AND occurred_at < coalesce($7::timestamptz, 'infinity')
          LIMIT 1000) e
) o
CROSS JOIN LATERAL (
    SELECT count(*) AS entries
    FROM (SELECT FROM audit_live.entries
          WHERE role_key = $3 AND action = ANY ($5) AND occurred_at >= coalesce($6::timestamptz, '-infinity')
            AND occurred_at < coalesce($7::timestamptz, 'infinity')
          LIMIT 1000) e
) r
CROSS JOIN LATERAL (
    SELECT count(*) AS entries
    FROM (SELECT FROM audit_live.entries
          WHERE ip_key = $2 AND action = ANY ($5) AND occurred_at >= coalesce($6::timestamptz, '-infinity')
            AND occurred_at < coalesce($7::timestamptz, 'infinity')
          LIMIT 1000) e
) i
