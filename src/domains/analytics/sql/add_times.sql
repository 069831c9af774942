INSERT INTO funnel_times (step, bucket, registered_on, micros, user_key)
SELECT *
FROM unnest($1::smallint[], $2::smallint[], $3::date[], $4::bigint[], $5::uuid[])
