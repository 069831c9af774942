-- Removes those of the words that no document has any more: they are personal data. The transaction has just changed their counts,
-- so it holds the rows.
DELETE FROM search_words AS w
USING unnest($1::text[], $2::integer[]) AS n (word, log_id)
WHERE w.word = n.word AND w.log_id = n.log_id AND w.documents = 0
