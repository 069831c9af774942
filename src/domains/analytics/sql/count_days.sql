-- Rows are written in the order of their keys, so that two writers can't deadlock.
INSERT INTO daily_counts AS c (day, metric, breakdown, shard, count)
SELECT *
FROM unnest($1::date[], $2::text[], $3::text[], $4::smallint[], $5::bigint[]) AS n (day, metric, breakdown, shard, count)
ORDER BY day, metric COLLATE "C", breakdown COLLATE "C", shard
ON CONFLICT (day, metric, breakdown, shard) DO UPDATE
SET count = c.count + EXCLUDED.count
