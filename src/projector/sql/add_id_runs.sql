INSERT INTO event_id_runs (log_id, run, ids_count, last_offset, last_time, filter, ids)
SELECT *
FROM unnest($1::integer[], $2::bigint[], $3::integer[], $4::bigint[], $5::timestamptz[], $6::bytea[], $7::bytea[])
