-- Moves the chains of these logs ($1) to these entries ($2) and heads ($3), made with this key ($4).
INSERT INTO chains AS c (log_id, sequence, link, key_id)
SELECT n.log_id, n.sequence, n.link, $4::bytea
FROM unnest($1::integer[], $2::bigint[], $3::bytea[]) AS n (log_id, sequence, link)
ON CONFLICT (log_id) DO UPDATE SET sequence = excluded.sequence, link = excluded.link, key_id = excluded.key_id
