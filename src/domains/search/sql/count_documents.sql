-- About how many documents there are, and how many match each word of a query ($1), exactly and as prefix (up to $2, the end of the
-- range), and with which words of users, if these are at most $3. A prefix counts by its first 1,000 words, and each of the next as
-- one. Where there are more than 5,000 it counts as infinite. Behind those of a prefix of one or two letters frequent words may
-- hide: where several words are to be compared, Postgres' statistics tell of them.
WITH frequent AS MATERIALIZED (
    SELECT m.word, m.share
    FROM pg_stats s
    CROSS JOIN LATERAL unnest(s.most_common_elems::text::text[], s.most_common_elem_freqs) AS m (word, share)
    WHERE (SELECT count(*) > 1 AND min(char_length(word)) < 3 FROM unnest($1::text[]) AS q (word)) AND m.word IS NOT NULL
      AND s.schemaname = 'search_live' AND s.tablename = 'search_documents' AND s.attname = 'words'
)
SELECT max(a.documents) AS "all!",
       coalesce(array_agg(c.exact ORDER BY p.number), '{}') AS "exact!",
       coalesce(array_agg(greatest(c.listed + c.others, a.documents * c.share) ORDER BY p.number), '{}') AS "prefix!",
       coalesce(array_agg(c.words ORDER BY p.number), '{}') AS "words!: Vec<Option<String>>"
FROM search_live.view_version v
CROSS JOIN (
    SELECT greatest(max(reltuples), 0)::float8 AS documents
    FROM pg_class
    WHERE oid = to_regclass('search_live.search_documents')
) a
CROSS JOIN unnest($1::text[], $2::text[]) WITH ORDINALITY AS p (word, last, number)
CROSS JOIN LATERAL (
    SELECT (SELECT coalesce(sum(w.documents), 0)::float8 FROM search_live.search_words w WHERE w.word = p.word) AS exact,
           f.listed, f.words,
           (SELECT CASE WHEN count(*) < 5000 THEN count(*) ELSE 'Infinity'::float8 END
            FROM (SELECT FROM search_live.search_words w
                  WHERE w.word >= p.word AND w.word < p.last
                  ORDER BY w.word
                  OFFSET 1000 LIMIT 5000) o) AS others,
           (SELECT coalesce(sum(f.share), 0)::float8
            FROM frequent f
            WHERE f.word COLLATE "C" >= p.word AND f.word COLLATE "C" < p.last) AS share
    FROM (
        SELECT coalesce(sum(w.documents), 0)::float8 AS listed,
               CASE WHEN count(*) <= $3 THEN coalesce(string_agg(w.word, ' '), '') END AS words
        FROM (SELECT w.word, w.documents
              FROM search_live.search_words w
              WHERE w.word >= p.word AND w.word < p.last
              ORDER BY w.word
              LIMIT 1000) w
    ) f
) c
