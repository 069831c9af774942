-- A user, and the positions that the answer reflects, in one snapshot: of the one log that the row is made from, or of
-- all where there is no row, where it is made from several, or where logs were added since. With a time ($2), what was
-- told of the user by then as well; without one the history is not looked at.
SELECT u.state AS "state?: Json<State>", h.facts AS "facts?: Json<Vec<Remembered<Fact>>>",
       coalesce(p.logs, '{}') AS "logs!", coalesce(p.offsets, '{}') AS "offsets!"
FROM fulfillment_live.view_version v
LEFT JOIN fulfillment_live.users u ON u.user_key = $1
CROSS JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_object('at', occurred_at, 'log', log_id, 'offset', record_offset, 'fact', fact)
                     ORDER BY revision, sequence) AS facts
    FROM fulfillment_live.user_history
    WHERE $2::timestamptz IS NOT NULL AND user_key = $1 AND occurred_at <= $2
) h
CROSS JOIN LATERAL (
    SELECT array_agg(log_id) AS logs, array_agg(next_offset) AS offsets
    FROM sightline.progress
    WHERE domain = 'fulfillment' AND version = v.version
      AND (log_id = u.log_id OR u.log_id IS NULL OR u.logs <> v.logs)
) p
