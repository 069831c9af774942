INSERT INTO address_changes (log_id, next_offset, sequence, user_key, user_id, kind, address_id, affects_shipping, affects_billing,
                             significant, before, after, deletion_type, occurred_at, event_id)
SELECT c.*
FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::boolean[], $9::boolean[],
            $10::boolean[], $11::jsonb[], $12::jsonb[], $13::text[], $14::timestamptz[], $15::text[]) AS c
