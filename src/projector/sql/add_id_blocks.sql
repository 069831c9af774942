INSERT INTO event_id_blocks (log_id, run, first_hash, ids)
SELECT *
FROM unnest($1::integer[], $2::bigint[], $3::uuid[], $4::bytea[])
