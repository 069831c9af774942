-- Adds to the counts of words ($1) in logs ($2), in the order of words and logs, and then to the words' own rows what the
-- magnitudes of their counts change by: in one order everywhere, so that two writers can't deadlock.
WITH changed AS (
    SELECT c.word, c.log_id, c.change
    FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS c (word, log_id, change)
), counted AS (
    INSERT INTO search_word_counts AS w (word, log_id, documents)
    SELECT c.word, c.log_id, c.change
    FROM changed c
    ORDER BY c.word COLLATE "C", c.log_id
    ON CONFLICT (word, log_id) DO UPDATE SET documents = w.documents + EXCLUDED.documents
    RETURNING word, log_id, documents
)
INSERT INTO search_words AS w (word, documents)
SELECT n.word, sum(m.change)
FROM counted n
JOIN changed c ON c.word = n.word AND c.log_id = n.log_id
CROSS JOIN LATERAL (SELECT sightline.magnitude(n.documents) - sightline.magnitude(n.documents - c.change) AS change) m
WHERE m.change <> 0
GROUP BY n.word
ORDER BY n.word COLLATE "C"
ON CONFLICT (word) DO UPDATE SET documents = w.documents + EXCLUDED.documents
