INSERT INTO address_changes (log_id, next_offset, sequence, user_key, user_id, significant, deletion_type, occurred_at, change)
SELECT *
FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::uuid[], $5::text[], $6::boolean[], $7::text[], $8::timestamptz[],
            $9::text[])
