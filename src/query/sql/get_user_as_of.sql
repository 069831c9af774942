-- A user, the user's facts until an instant ($2), and the positions that the answer reflects, in one snapshot. find_users.sql
-- says which positions these are.
SELECT u.state::text, coalesce(h.times, '{}') AS times, coalesce(h.log_ids, '{}') AS log_ids,
       coalesce(h.record_offsets, '{}') AS record_offsets, coalesce(h.facts::text[], '{}') AS facts,
       coalesce(p.logs, '{}') AS logs, coalesce(p.offsets, '{}') AS offsets, v.ready AS ready,
       (SELECT d.id FROM sightline.dead_letters d
               WHERE d.domain = '{domain}' AND d.version = v.version AND d.key_hash = $1
                 AND d.state IN ('parked', 'retrying') LIMIT 1) AS dead_letter
FROM {domain}_live.view_version v
LEFT JOIN {domain}_live.users u ON u.user_key = $1 AND u.user_id = $3
CROSS JOIN LATERAL (
    SELECT array_agg(occurred_at) AS times, array_agg(log_id) AS log_ids, array_agg(record_offset) AS record_offsets,
           array_agg(fact) AS facts
    FROM (
        SELECT *
        FROM {domain}_live.user_history
        WHERE user_key = $1 AND occurred_at <= $2
        ORDER BY revision, sequence
    ) f
) h
CROSS JOIN LATERAL (
    SELECT array_agg(log_id) AS logs, array_agg(next_offset) AS offsets
    FROM sightline.progress
    WHERE domain = '{domain}' AND version = v.version
      AND (log_id = u.log_id OR u.log_id IS NULL OR u.logs <> v.logs)
) p
