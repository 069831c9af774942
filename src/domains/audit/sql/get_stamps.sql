-- The stamps of the records at these offsets ($2) of these logs ($1).
SELECT s.log_id, s.record_offset, s.recorded_at, s.salts
FROM unnest($1::integer[], $2::bigint[]) AS n (log_id, record_offset)
JOIN audit.stamps s USING (log_id, record_offset)
