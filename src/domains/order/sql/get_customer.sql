-- A customer, and the positions that the answer reflects, in one snapshot. A row that is made from
-- one log reflects the position of that log. If there is no row, or it is made from several logs,
-- or logs were added since, the answer reflects the positions of all logs. Open dead letters under the
-- user's id are missing from it.
SELECT c.state AS "state?",
       coalesce(p.logs, '{}') AS "logs!", coalesce(p.offsets, '{}') AS "offsets!", v.ready AS "ready!",
       EXISTS (SELECT FROM sightline.dead_letters d
               WHERE d.domain = 'order' AND d.version = v.version AND d.key_hash = $1
                 AND d.state IN ('parked', 'retrying')) AS "lacks_dead_letters!"
FROM order_live.view_version v
LEFT JOIN order_live.users c ON c.user_key = $1 AND c.user_id = $2
CROSS JOIN LATERAL (
    SELECT array_agg(log_id) AS logs, array_agg(next_offset) AS offsets
    FROM sightline.progress
    WHERE domain = 'order' AND version = v.version
      AND (log_id = c.log_id OR c.log_id IS NULL OR c.logs <> v.logs)
) p
