-- search: a row for each word, whatever number of logs it is counted in. A search reads words by their pieces and beginnings, and
-- read each as often as there are logs.

-- The largest power of two in a count; 0 of none.
CREATE FUNCTION sightline.magnitude(count bigint)
RETURNS bigint IMMUTABLE PARALLEL SAFE LANGUAGE sql
RETURN CASE WHEN count > 0 THEN power(2, floor(ln(count::float8) / ln(2::float8)))::bigint ELSE 0 END;

SELECT sightline.in_every_version('search', $$
    -- In how many documents of each log a word is: partitions don't wait for each other where they count a frequent one.
    ALTER TABLE search_words RENAME TO search_word_counts;
    ALTER INDEX search_words_pkey RENAME TO search_word_counts_pkey;
    DROP INDEX search_words_by_beginning, search_words_by_ending, search_words_by_middle;
    ALTER TABLE search_word_counts DROP length, DROP backwards, DROP middle;

    -- All words of all documents, for queries with typos, and about in how many documents each is: the sum of the magnitudes of its
    -- counts. So this row is written only where a count doubles or halves, and is gone with the last document.
    CREATE TABLE search_words (
        word      text COLLATE "C" PRIMARY KEY,
        documents bigint           NOT NULL,
        length    integer          NOT NULL GENERATED ALWAYS AS (char_length(word)) STORED,
        backwards text COLLATE "C" NOT NULL GENERATED ALWAYS AS (reverse(word)) STORED,
        -- What is left without its first and its last third (src/domains/search/similar.rs).
        middle    text COLLATE "C" NOT NULL GENERATED ALWAYS AS (
            substr(word, (char_length(word) + 2) / 3 + 1, char_length(word) - (char_length(word) + 2) / 3 - char_length(word) / 3)) STORED
    ) WITH (fillfactor = 90);
    INSERT INTO search_words (word, documents)
    SELECT word, sum(sightline.magnitude(documents)) FROM search_word_counts GROUP BY word;
    CREATE INDEX search_words_by_beginning ON search_words (length, word);
    CREATE INDEX search_words_by_ending ON search_words (length, backwards);
    -- Shorter words are found by their beginnings and endings.
    CREATE INDEX search_words_by_middle ON search_words (length, middle, word) WHERE length >= 6;
$$);
