-- Rows are written in the order of their keys, so that two writers can't deadlock.
INSERT INTO funnel_counts AS c (registered_on, step, bucket, shard, count)
SELECT *
FROM unnest($1::date[], $2::smallint[], $3::smallint[], $4::smallint[], $5::bigint[]) AS n (registered_on, step, bucket, shard, count)
ORDER BY registered_on, step, bucket, shard
ON CONFLICT (registered_on, step, bucket, shard) DO UPDATE
SET count = c.count + EXCLUDED.count
