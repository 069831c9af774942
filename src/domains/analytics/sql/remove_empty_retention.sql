-- A rebuild has no row for what was counted and taken away again, so none stays here.
DELETE FROM retention_counts c
USING unnest($1::date[], $2::smallint[], $3::smallint[]) AS n (registered_on, week, shard)
WHERE (c.registered_on, c.week, c.shard) = (n.registered_on, n.week, n.shard) AND c.count = 0
