-- Rows are written in the order of their keys, so that two writers can't deadlock.
INSERT INTO retention_counts AS c (registered_on, week, shard, count)
SELECT *
FROM unnest($1::date[], $2::smallint[], $3::smallint[], $4::bigint[]) AS n (registered_on, week, shard, count)
ORDER BY registered_on, week, shard
ON CONFLICT (registered_on, week, shard) DO UPDATE
SET count = c.count + EXCLUDED.count
