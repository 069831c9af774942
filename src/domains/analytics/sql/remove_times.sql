DELETE FROM funnel_times t
USING unnest($1::smallint[], $2::smallint[], $3::date[], $4::bigint[], $5::uuid[]) AS n (step, bucket, registered_on, micros, user_key)
WHERE (t.step, t.bucket, t.registered_on, t.micros, t.user_key) = (n.step, n.bucket, n.registered_on, n.micros, n.user_key)
