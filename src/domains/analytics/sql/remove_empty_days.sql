-- A rebuild has no row for what was counted and taken away again, so none stays here.
DELETE FROM daily_counts c
USING unnest($1::date[], $2::text[], $3::text[], $4::smallint[]) AS n (day, metric, breakdown, shard)
WHERE (c.day, c.metric, c.breakdown, c.shard) = (n.day, n.metric, n.breakdown, n.shard) AND c.count = 0
