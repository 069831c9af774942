-- The words come with a space between them. The index by id holds them up to a size. Each row is written by the transaction that has
-- just written the user's row, so that two writers of one can't meet here.
INSERT INTO search_documents AS d (user_key, user_id, status_key, registered_at, words, many_words, document)
SELECT n.user_key, n.user_id, n.status_key, n.registered_at,
       CASE WHEN pg_column_size(w.words) <= 1500 THEN w.words END, CASE WHEN pg_column_size(w.words) > 1500 THEN w.words END, n.document
FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::timestamptz[], $5::text[], $6::text[])
     AS n (user_key, user_id, status_key, registered_at, words, document)
CROSS JOIN LATERAL (SELECT array_to_tsvector(string_to_array(n.words, ' ')) AS words) w
ORDER BY n.user_key
ON CONFLICT (user_key) DO UPDATE
SET status_key = EXCLUDED.status_key, registered_at = EXCLUDED.registered_at, words = EXCLUDED.words,
    many_words = EXCLUDED.many_words, document = EXCLUDED.document
