-- Removes the counts of words ($1) in logs ($2) that are none any more, and those of the words that no document has: they are
-- personal data. The transaction has just changed them, so it holds the rows.
WITH removed AS (
    DELETE FROM search_word_counts AS w
    USING unnest($1::text[], $2::integer[]) AS n (word, log_id)
    WHERE w.word = n.word AND w.log_id = n.log_id AND w.documents = 0
)
DELETE FROM search_words WHERE word = ANY ($1::text[]) AND documents = 0
