-- A rebuild has no row for what was counted and taken away again, so none stays here.
DELETE FROM funnel_counts c
USING unnest($1::date[], $2::smallint[], $3::smallint[], $4::smallint[]) AS n (registered_on, step, bucket, shard)
WHERE (c.registered_on, c.step, c.bucket, c.shard) = (n.registered_on, n.step, n.bucket, n.shard) AND c.count = 0
