-- Adds entries. Their numbers are new, because the transaction holds the progress rows of their logs.
INSERT INTO entries (log_id, sequence, action, partition, record_offset, occurred_at, recorded_at, event_id, user_key, actor_key,
                     role_key, permission_key, ip_key, facts, ip_address, user_agent, changed_values, salts, link)
SELECT *
FROM unnest($1::integer[], $2::bigint[], $3::smallint[], $4::integer[], $5::bigint[], $6::timestamptz[], $7::timestamptz[],
            $8::text[], $9::uuid[], $10::uuid[], $11::uuid[], $12::uuid[], $13::uuid[], $14::text[], $15::text[], $16::text[],
            $17::text[], $18::bytea[], $19::bytea[])
