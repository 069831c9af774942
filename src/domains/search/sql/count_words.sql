-- Adds to the counts of words ($1) in logs ($2), in the order of words and logs, so that two writers can't deadlock.
INSERT INTO search_words AS w (word, log_id, documents)
SELECT n.word, n.log_id, n.documents
FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS n (word, log_id, documents)
ORDER BY n.word COLLATE "C", n.log_id
ON CONFLICT (word, log_id) DO UPDATE SET documents = w.documents + EXCLUDED.documents
