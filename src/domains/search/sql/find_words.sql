-- Words that share a piece with a word of the query: that begin with it ($1 to $4), end with it ($5 to $8, written backwards) or
-- have it in the middle ($9 to $11). Many do and are then dropped, so they come as one text, with a space between them. Where names
-- are numbered, all may begin alike: of each piece so many words count ($12), the first in their order.
SELECT f.number AS "number!", string_agg(f.word, ' ') AS "words!"
FROM search_live.view_version v
CROSS JOIN LATERAL (
    SELECT p.number, w.word
    FROM unnest($1::integer[], $2::integer[], $3::text[], $4::text[]) AS p (number, length, first, last)
    CROSS JOIN LATERAL (
        SELECT w.word
        FROM search_live.search_words w
        WHERE w.length = p.length AND w.word >= p.first AND w.word < p.last
        ORDER BY w.word
        LIMIT $12
    ) w
    UNION ALL
    SELECT p.number, reverse(w.backwards)
    FROM unnest($5::integer[], $6::integer[], $7::text[], $8::text[]) AS p (number, length, first, last)
    CROSS JOIN LATERAL (
        SELECT w.backwards
        FROM search_live.search_words w
        WHERE w.length = p.length AND w.backwards >= p.first AND w.backwards < p.last
        ORDER BY w.backwards
        LIMIT $12
    ) w
    UNION ALL
    SELECT p.number, w.word
    FROM unnest($9::integer[], $10::integer[], $11::text[]) AS p (number, length, middle)
    CROSS JOIN LATERAL (
        SELECT w.word
        FROM search_live.search_words w
        WHERE w.length = p.length AND w.middle = p.middle AND w.length >= 6
        ORDER BY w.word
        LIMIT $12
    ) w
) f
GROUP BY f.number
