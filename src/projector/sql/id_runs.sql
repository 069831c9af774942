-- The runs of logs' ($1) remembered ids, with the filters of those that the caller does not know ($2), which may be thousands.
SELECT r.log_id, r.run, CASE WHEN known.run IS NULL THEN r.filter END AS filter
FROM event_id_runs r
LEFT JOIN unnest($2::bigint[]) AS known (run) ON known.run = r.run
WHERE r.log_id = ANY ($1)
