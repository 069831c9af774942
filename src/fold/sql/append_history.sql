INSERT INTO user_history (user_key, revision, sequence, occurred_at, log_id, record_offset, fact)
SELECT *
FROM unnest($1::uuid[], $2::bigint[], $3::integer[], $4::timestamptz[], $5::integer[], $6::bigint[], $7::text[])
