-- Rows are written in the order of their keys, as in every statement that writes several, so that
-- two writers can't deadlock. A row without a feed position (next_offset, sequence) records only
-- that the user's events have named the address: it does not overwrite an existing row.
INSERT INTO shipping_addresses AS a (log_id, address_key, user_key, address_id, user_id, next_offset, sequence,
                                     address, country_key, status, updated_at, updated_log, updated_offset)
SELECT n.*
FROM unnest($1::integer[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bigint[], $7::bigint[],
            $8::text[], $9::uuid[], $10::text[], $11::timestamptz[], $12::integer[], $13::bigint[])
     AS n (log_id, address_key, user_key, address_id, user_id, next_offset, sequence,
           address, country_key, status, updated_at, updated_log, updated_offset)
ORDER BY n.address_key, n.user_key
ON CONFLICT (address_key, user_key) DO UPDATE
SET log_id = EXCLUDED.log_id, next_offset = EXCLUDED.next_offset, sequence = EXCLUDED.sequence,
    address = EXCLUDED.address, country_key = EXCLUDED.country_key, status = EXCLUDED.status,
    updated_at = EXCLUDED.updated_at, updated_log = EXCLUDED.updated_log, updated_offset = EXCLUDED.updated_offset
WHERE EXCLUDED.next_offset IS NOT NULL
