-- The runs of logs' ($1) remembered ids, with the filters of those that the caller does not know ($2).
SELECT log_id, run, CASE WHEN run <> ALL ($2::bigint[]) THEN filter END AS filter
FROM event_id_runs
WHERE log_id = ANY ($1)
