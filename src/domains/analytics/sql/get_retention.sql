-- How many users registered in each ISO week, on a day from $1 to $2, how many of them logged in in each of the first weeks
-- after it ($3), and the positions of all logs, in one snapshot. Weeks are numbered from the Monday before 1970.
WITH logs AS (
    SELECT p.log_id, p.next_offset
    FROM analytics_live.view_version v
    JOIN sightline.progress p ON p.domain = 'analytics' AND p.version = v.version
), sizes AS (
    SELECT (registered_on - date '1969-12-29') / 7 AS cohort, sum(count)::bigint AS size
    FROM analytics_live.funnel_counts
    WHERE registered_on BETWEEN $1 AND $2 AND step = 0
    GROUP BY 1
), retained AS (
    SELECT (registered_on - date '1969-12-29') / 7 AS cohort, week, sum(count)::bigint AS count
    FROM analytics_live.retention_counts
    WHERE registered_on BETWEEN $1 AND $2 AND week < $3
    GROUP BY 1, 2
), cohorts AS (
    SELECT array_agg(cohort ORDER BY cohort) AS cohorts, array_agg(size ORDER BY cohort) AS sizes FROM sizes
), weeks AS (
    SELECT array_agg(cohort) AS cohorts, array_agg(week) AS weeks, array_agg(count) AS counts FROM retained
)
SELECT coalesce((SELECT cohorts FROM cohorts), '{}') AS "cohorts!",
       coalesce((SELECT sizes FROM cohorts), '{}') AS "sizes!",
       coalesce((SELECT cohorts FROM weeks), '{}') AS "retained_cohorts!",
       coalesce((SELECT weeks FROM weeks), '{}') AS "retained_weeks!",
       coalesce((SELECT counts FROM weeks), '{}') AS "retained_counts!",
       (SELECT ready FROM analytics_live.view_version) AS "ready!",
       coalesce(array_agg(log_id), '{}') AS "logs!", coalesce(array_agg(next_offset), '{}') AS "offsets!"
FROM logs
