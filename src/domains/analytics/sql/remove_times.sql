DELETE FROM funnel_times t
USING unnest($1::smallint[], $2::smallint[], $3::date[], $4::bigint[], $5::uuid[]) AS n (step, bucket, registered_on, micros, user_key)
WHERE (t.step, t.bucket, t.registered_in) = (n.step, n.bucket, extract(year FROM n.registered_on)::smallint)
  AND (t.micros, t.registered_on, t.user_key) = (n.micros, n.registered_on, n.user_key)
