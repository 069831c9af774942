-- A page of alerts, the newest window first, in a window by kind and key, and the positions of all logs, in one snapshot: those of
-- these kinds ($1) whose windows begin in a time ($2 to $3), after the last one of the page before ($4 to $7). queries.rs makes two
-- statements of this text: for all keys, and for one ($10), which may be the text of several accounts. Their hashes ($9, that of the
-- user's id first) are read one by one ({hashes}). The alerts of a kind are read in the order of an index: first those in the last
-- window of the page before, then those before it.
-- Logins after failures (4) are looked for in the windows of brute force (1): after the last window of a page that the other kinds
-- fill, else until so many ($11) windows are read ("horizon"), because there may be many windows without a login.
-- The hash of a window is that of a user of entries only where its account is a user's id. For one key, {user} reads no other windows.
WITH logs AS (
    SELECT p.log_id, p.next_offset
    FROM audit_live.view_version v
    JOIN sightline.progress p ON p.domain = 'audit' AND p.version = v.version
), others AS (
    SELECT k.alert_kind, w.*
    FROM unnest($1::smallint[]) AS k (alert_kind)
    CROSS JOIN {hashes} AS h (key_hash)
    CROSS JOIN LATERAL (
        (SELECT w.*
         FROM audit_live.alert_windows w
         WHERE w.is_alert AND w.kind = k.alert_kind AND {key} AND k.alert_kind >= $5::smallint AND w.window_start = $4::timestamptz
           AND (w.key_start, w.key_hash) > (CASE k.alert_kind WHEN $5 THEN $6::text ELSE '' END,
                                            CASE k.alert_kind WHEN $5 THEN $7::uuid ELSE '00000000-0000-0000-0000-000000000000' END)
         ORDER BY {order}
         LIMIT $8::bigint)
        UNION ALL
        (SELECT w.*
         FROM audit_live.alert_windows w
         WHERE w.is_alert AND w.kind = k.alert_kind AND {key}
           AND w.window_start >= coalesce($2::timestamptz, '-infinity')
           AND w.window_start < least(coalesce($3::timestamptz, 'infinity'), $4)
         ORDER BY {order}
         LIMIT $8)
    ) w
    ORDER BY w.window_start DESC, w.kind, w.key_start, w.key_hash
    LIMIT $8
), ends AS (
    SELECT CASE WHEN count(*) >= $8 THEN min(window_start) END AS last,
           CASE WHEN count(*) < $8 AND 4 = ANY ($1) THEN (
               SELECT w.window_start
               FROM audit_live.alert_windows w
               WHERE w.is_alert AND w.kind = 1 AND {user}
                 AND w.window_start >= coalesce($2, '-infinity') AND w.window_start < least(coalesce($3, 'infinity'), $4)
               ORDER BY {order}
               OFFSET $11::bigint LIMIT 1)
           END AS horizon
    FROM others
), logins AS (
    SELECT 4::smallint AS alert_kind, w.*
    FROM ends
    CROSS JOIN LATERAL (
        SELECT *
        FROM (
            (SELECT w.*
             FROM audit_live.alert_windows w
             WHERE w.is_alert AND w.kind = 1 AND {user} AND 4 = ANY ($1) AND $5 <= 4 AND w.window_start = $4
               AND (w.key_start, w.key_hash) > (CASE $5 WHEN 4 THEN $6 ELSE '' END,
                                                CASE $5 WHEN 4 THEN $7 ELSE '00000000-0000-0000-0000-000000000000' END)
               AND w.window_start > coalesce(ends.last, '-infinity')
             ORDER BY {order})
            UNION ALL
            (SELECT w.*
             FROM audit_live.alert_windows w
             WHERE w.is_alert AND w.kind = 1 AND {user} AND 4 = ANY ($1)
               AND w.window_start >= coalesce(ends.horizon, $2, '-infinity') AND w.window_start > coalesce(ends.last, '-infinity')
               AND w.window_start < least(coalesce($3, 'infinity'), $4)
             ORDER BY {order})
        ) w
        WHERE EXISTS (
            SELECT FROM audit_live.entries e
            WHERE e.user_key = w.key_hash AND e.action = 11 AND e.occurred_at >= w.window_start
              AND e.occurred_at < w.window_start + make_interval(secs => w.window_seconds)
              AND strpos(e.facts, '"userId":' || to_json(w.key)::text) > 0)
        ORDER BY {order}
        LIMIT $8
    ) w
), page AS (
    SELECT w.*, w.window_start + make_interval(secs => w.window_seconds) AS window_end
    FROM (SELECT * FROM others UNION ALL SELECT * FROM logins) w
    ORDER BY w.window_start DESC, w.alert_kind, w.key_start, w.key_hash
    LIMIT $8
), detailed AS (
    SELECT w.alert_kind, w.key, w.key_start, w.key_hash, w.window_start, w.window_end, coalesce(l.count, w.count) AS count,
           coalesce(l.first, w.first_event_at) AS first_event_at, coalesce(l.last, w.last_event_at) AS last_event_at,
           coalesce(l.ids, (SELECT array_agg(substr(event, 17) ORDER BY number)
                            FROM unnest(w.events) WITH ORDINALITY AS e (event, number))) AS ids
    FROM page w
    LEFT JOIN LATERAL (
        SELECT count(*) AS count, min(e.occurred_at) AS first, max(e.occurred_at) AS last,
               (array_agg(e.event_id ORDER BY e.occurred_at, e.event_id COLLATE "C"))[:100] AS ids
        FROM audit_live.entries e
        WHERE e.user_key = w.key_hash AND e.action = 11 AND e.occurred_at >= w.window_start AND e.occurred_at < w.window_end
          AND strpos(e.facts, '"userId":' || to_json(w.key)::text) > 0
    ) l ON w.alert_kind = 4
), sized AS (
    SELECT *, to_json(ids)::text AS event_ids,
           sum(octet_length(key) + octet_length(to_json(ids)::text))
           OVER (ORDER BY window_start DESC, alert_kind, key_start, key_hash ROWS BETWEEN UNBOUNDED PRECEDING AND 2 PRECEDING)
           AS bytes_before
    FROM detailed
), found AS (
    SELECT array_agg(alert_kind) AS kinds, array_agg(key) AS keys, array_agg(key_start) AS key_starts,
           array_agg(key_hash) AS key_hashes, array_agg(window_start) AS starts, array_agg(window_end) AS ends,
           array_agg(count) AS counts, array_agg(first_event_at) AS first_events, array_agg(last_event_at) AS last_events,
           array_agg(event_ids) AS event_ids
    FROM (
        SELECT *
        FROM sized
        -- An answer holds 3 MiB. This much text is more than that. A row of it alone is followed by another one, so that it shows
        -- that more follow.
        WHERE coalesce(bytes_before, 0) < 8 * 1024 * 1024
        ORDER BY window_start DESC, alert_kind, key_start, key_hash
    ) s
)
SELECT coalesce(f.kinds, '{}') AS kinds, coalesce(f.keys, '{}') AS keys, coalesce(f.key_starts, '{}') AS key_starts,
       coalesce(f.key_hashes, '{}') AS key_hashes, coalesce(f.starts, '{}') AS starts, coalesce(f.ends, '{}') AS ends,
       coalesce(f.counts, '{}') AS counts, coalesce(f.first_events, '{}') AS first_events,
       coalesce(f.last_events, '{}') AS last_events, coalesce(f.event_ids, '{}') AS event_ids,
       ends.horizon AS horizon, v.ready AS ready, coalesce(p.logs, '{}') AS logs, coalesce(p.offsets, '{}') AS offsets
FROM audit_live.view_version v
CROSS JOIN found f
CROSS JOIN ends
CROSS JOIN (SELECT array_agg(log_id) AS logs, array_agg(next_offset) AS offsets FROM logs) p
