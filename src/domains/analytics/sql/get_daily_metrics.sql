-- The counts of some metrics ($3) from day to day ($1, $2), and the positions of all logs, in one snapshot.
WITH logs AS (
    SELECT p.log_id, p.next_offset
    FROM analytics_live.view_version v
    JOIN sightline.progress p ON p.domain = 'analytics' AND p.version = v.version
), counts AS (
    SELECT day, metric, breakdown, sum(count)::bigint AS count
    FROM analytics_live.daily_counts
    WHERE day BETWEEN $1 AND $2 AND metric = ANY ($3)
    GROUP BY day, metric, breakdown
), sized AS (
    SELECT *, sum(octet_length(breakdown) + 4)
              OVER (ORDER BY day, metric, breakdown ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
    FROM counts
), found AS (
    SELECT array_agg(day) AS days, array_agg(metric) AS metrics, array_agg(breakdown) AS breakdowns, array_agg(count) AS counts
    FROM (
        SELECT *
        FROM sized
        -- An answer holds 3 MiB of JSON, in which these rows are longer: one with more is refused.
        WHERE coalesce(bytes_before, 0) < 4 * 1024 * 1024
        ORDER BY day, metric, breakdown
    ) s
)
SELECT coalesce((SELECT days FROM found), '{}') AS "days!",
       coalesce((SELECT metrics FROM found), '{}') AS "metrics!",
       coalesce((SELECT breakdowns FROM found), '{}') AS "breakdowns!",
       coalesce((SELECT counts FROM found), '{}') AS "counts!",
       (SELECT ready FROM analytics_live.view_version) AS "ready!",
       coalesce(array_agg(log_id), '{}') AS "logs!", coalesce(array_agg(next_offset), '{}') AS "offsets!"
FROM logs
