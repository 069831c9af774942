-- About how many documents match each word of a query, whose prefixes are given as ranges ($1, $2), or are similar to it ($4, each
-- with the word's number, $3). A prefix counts by its first words: they show which of the query's words is rare.
SELECT coalesce(array_agg(c.documents ORDER BY p.number), '{}') AS "documents!"
FROM search_live.view_version v
CROSS JOIN unnest($1::text[], $2::text[]) WITH ORDINALITY AS p (first, last, number)
CROSS JOIN LATERAL (
    SELECT coalesce(sum(w.documents), 0)::bigint AS documents
    FROM (
        (SELECT b.documents
         FROM search_live.search_words b
         WHERE b.word >= p.first AND b.word < p.last
         ORDER BY b.word
         LIMIT 300)
        UNION ALL
        (SELECT s.documents
         FROM unnest($3::integer[], $4::text[]) AS n (number, word)
         JOIN search_live.search_words s ON s.word = n.word
         WHERE n.number = p.number)
    ) w
) c
