-- Erases what is personal in these entries ($1, $2), and the salts, with which it could be tried out; digests ($4) stay. The stamps of
-- their records ($3) lose the salts, too: what another version still has, it erases with salts of its own.
WITH n AS (
    SELECT * FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::bytea[]) AS n (log_id, sequence, record_offset, digests)
), entry AS (
    UPDATE entries AS e
    SET ip_key = NULL, ip_address = NULL, user_agent = NULL, changed_values = NULL, salts = NULL, digests = n.digests
    FROM n
    WHERE e.log_id = n.log_id AND e.sequence = n.sequence
)
UPDATE audit.stamps AS s
SET salts = NULL
FROM n
WHERE s.log_id = n.log_id AND s.record_offset = n.record_offset AND s.salts IS NOT NULL
