-- Users in the order of their ids, after one ($7), and the positions of all logs. Their words match a query ($1, $2 and $3), and not
-- a better one ($4); they have one of these statuses ($5), and registered after an instant ($6). NULL leaves a condition out. With
-- $1, the index of words finds all users that match it and $2, and they are sorted: only the operator @@ uses that index. Without
-- $1, the users are read in their order until the page is full, from the index by id alone. The statement is planned for its values.
WITH logs AS (
    SELECT p.log_id, p.next_offset
    FROM search_live.view_version v
    JOIN sightline.progress p ON p.domain = 'search' AND p.version = v.version
), page AS (
    (SELECT d.user_id, d.user_key
     FROM search_live.search_documents d
     WHERE $1::text IS NULL
       AND d.words IS NOT NULL
       AND ($3::text IS NULL OR ts_match_vq(d.words, $3::text::tsquery))
       AND ($4::text IS NULL OR NOT ts_match_vq(d.words, $4::text::tsquery))
       AND ($5::uuid[] IS NULL OR d.status_key = ANY ($5))
       AND ($6::timestamptz IS NULL OR d.registered_at > $6)
       AND ($7::text IS NULL OR d.user_id > $7)
     ORDER BY d.user_id
     LIMIT $8)
    UNION ALL
    (SELECT m.user_id, m.user_key
     FROM (
         -- The index by id does not hold the document, and OFFSET 0 keeps the limit out: so Postgres takes the index of words,
         -- however many words it takes a long query to match.
         SELECT d.user_id, d.user_key, octet_length(d.document) AS bytes
         FROM search_live.search_documents d
         WHERE $1::text IS NOT NULL
           AND d.words @@ $1::text::tsquery
           AND ($2::text IS NULL OR d.words @@ $2::text::tsquery)
           AND ($3::text IS NULL OR ts_match_vq(d.words, $3::text::tsquery))
           AND ($4::text IS NULL OR NOT ts_match_vq(d.words, $4::text::tsquery))
           AND ($5::uuid[] IS NULL OR d.status_key = ANY ($5))
           AND ($6::timestamptz IS NULL OR d.registered_at > $6)
           AND ($7::text IS NULL OR d.user_id > $7)
         OFFSET 0
     ) m
     WHERE m.bytes > 0
     ORDER BY m.user_id
     LIMIT $8)
    UNION ALL
    -- Users with very many words.
    (SELECT d.user_id, d.user_key
     FROM search_live.search_documents d
     WHERE d.many_words IS NOT NULL
       AND ($1::text IS NULL OR d.many_words @@ $1::text::tsquery)
       AND ($2::text IS NULL OR d.many_words @@ $2::text::tsquery)
       AND ($3::text IS NULL OR ts_match_vq(d.many_words, $3::text::tsquery))
       AND ($4::text IS NULL OR NOT ts_match_vq(d.many_words, $4::text::tsquery))
       AND ($5::uuid[] IS NULL OR d.status_key = ANY ($5))
       AND ($6::timestamptz IS NULL OR d.registered_at > $6)
       AND ($7::text IS NULL OR d.user_id > $7)
     ORDER BY d.user_id
     LIMIT $8)
    ORDER BY user_id
    LIMIT $8
), sized AS (
    SELECT p.user_id, d.document,
           sum(octet_length(d.document)) OVER (ORDER BY p.user_id ROWS BETWEEN UNBOUNDED PRECEDING AND 2 PRECEDING) AS bytes_before
    FROM page p
    JOIN search_live.search_documents d ON d.user_key = p.user_key
)
SELECT coalesce((SELECT array_agg(document::text ORDER BY user_id)
                 FROM sized
                 -- An answer holds 3 MiB. This much text is more than that. A row of it alone is followed by another one, so that it shows
                 -- that more follow.
                 WHERE coalesce(bytes_before, 0) < 8 * 1024 * 1024), '{}') AS "documents!",
       (SELECT ready FROM search_live.view_version) AS "ready!",
       coalesce(array_agg(log_id), '{}') AS "logs!", coalesce(array_agg(next_offset), '{}') AS "offsets!"
FROM logs
