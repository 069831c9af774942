-- The runs of a log's remembered ids, with the filters of those that the caller does not know ($2).
SELECT run, CASE WHEN run <> ALL ($2::bigint[]) THEN filter END AS filter
FROM event_id_runs
WHERE log_id = $1
