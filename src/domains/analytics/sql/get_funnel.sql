-- How many users who registered from day to day ($1, $2) have reached each step, the one or two middle times of each step, and
-- the positions of all logs, in one snapshot. The counts by bucket tell in which bucket the middle lies, and at which rank. Of that
-- bucket the exact times are read in their order, up to the middle. The index has them in order within each year of registrations:
-- those of the first and the last year are merged, and only those of the years between, of which there are seldom any, are sorted.
WITH logs AS (
    SELECT p.log_id, p.next_offset
    FROM analytics_live.view_version v
    JOIN sightline.progress p ON p.domain = 'analytics' AND p.version = v.version
), buckets AS (
    SELECT step, bucket, sum(count)::bigint AS count
    FROM analytics_live.funnel_counts
    WHERE registered_on BETWEEN $1 AND $2
    GROUP BY step, bucket
), ranked AS (
    SELECT step, bucket,
           (sum(count) OVER (PARTITION BY step ORDER BY bucket))::bigint - count AS before,
           (sum(count) OVER (PARTITION BY step ORDER BY bucket))::bigint AS upto,
           (sum(count) OVER (PARTITION BY step))::bigint AS total
    FROM buckets
), middle AS (
    -- The ranks of the middle times that lie in the bucket, counted from its first. They are two where the step's count
    -- is even; the second may lie in the next bucket.
    SELECT step, bucket, greatest((total + 1) / 2, before + 1) - before AS first, least(total / 2 + 1, upto) - before AS last
    FROM ranked
    WHERE step > 0 AND (total + 1) / 2 <= upto AND total / 2 + 1 > before
), times AS (
    SELECT m.step, t.micros
    FROM middle m
    CROSS JOIN (SELECT extract(year FROM $1::date)::smallint AS first, extract(year FROM $2::date)::smallint AS last) y
    CROSS JOIN LATERAL (
        SELECT t.micros
        FROM (
            (SELECT t.micros
             FROM analytics_live.funnel_times t
             WHERE t.step = m.step AND t.bucket = m.bucket AND t.registered_in = y.first AND t.registered_on BETWEEN $1 AND $2
             ORDER BY t.micros)
            UNION ALL
            (SELECT t.micros
             FROM analytics_live.funnel_times t
             WHERE t.step = m.step AND t.bucket = m.bucket AND t.registered_in = y.last AND t.registered_on <= $2 AND y.last > y.first
             ORDER BY t.micros)
            UNION ALL
            (SELECT t.micros
             FROM analytics_live.funnel_times t
             WHERE t.step = m.step AND t.bucket = m.bucket AND t.registered_in > y.first AND t.registered_in < y.last
             ORDER BY t.micros)
        ) t
        ORDER BY t.micros
        OFFSET m.first - 1
        LIMIT m.last - m.first + 1
    ) t
), found AS (
    SELECT array_agg(step) AS steps, array_agg(count) AS counts
    FROM (SELECT step, sum(count)::bigint AS count FROM buckets GROUP BY step) s
), medians AS (
    SELECT array_agg(step) AS steps, array_agg(micros) AS micros FROM times
)
SELECT coalesce((SELECT steps FROM found), '{}') AS "steps!",
       coalesce((SELECT counts FROM found), '{}') AS "counts!",
       coalesce((SELECT steps FROM medians), '{}') AS "middle_steps!",
       coalesce((SELECT micros FROM medians), '{}') AS "middle_micros!",
       (SELECT ready FROM analytics_live.view_version) AS "ready!",
       coalesce(array_agg(log_id), '{}') AS "logs!", coalesce(array_agg(next_offset), '{}') AS "offsets!"
FROM logs
