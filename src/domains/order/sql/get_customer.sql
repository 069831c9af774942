-- A customer, and the positions that the answer reflects, in one snapshot: of the one log that the row is made
-- from, or of all where there is no row, where it is made from several, or where logs were added since.
SELECT c.state AS "state?: Json<State>",
       coalesce(p.logs, '{}') AS "logs!", coalesce(p.offsets, '{}') AS "offsets!"
FROM order_live.view_version v
LEFT JOIN order_live.users c ON c.user_key = $1
CROSS JOIN LATERAL (
    SELECT array_agg(log_id) AS logs, array_agg(next_offset) AS offsets
    FROM sightline.progress
    WHERE domain = 'order' AND version = v.version
      AND (log_id = c.log_id OR c.log_id IS NULL OR c.logs <> v.logs)
) p
