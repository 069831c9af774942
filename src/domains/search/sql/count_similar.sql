-- In about how many documents the words are ($2) that are similar to each word of a query (its number, $1).
SELECT n.number AS "number!", sum(w.documents)::float8 AS "documents!"
FROM search_live.view_version v
CROSS JOIN unnest($1::integer[], $2::text[]) AS n (number, word)
JOIN search_live.search_words w ON w.word = n.word
GROUP BY n.number
