-- search: find a user.
SELECT sightline.create_view('search', 1, 'search_live', 'live', 1);

-- What a user's document is made from (the form is that of order_live.users).
CREATE TABLE search_live.users (
    user_key uuid               PRIMARY KEY,
    user_id  text               NOT NULL,
    log_id   integer,
    logs     integer            NOT NULL,
    revision bigint             NOT NULL,
    state    sightline.document NOT NULL
) WITH (fillfactor = 90);

-- Each user as answered, with the words by which the user is found. A list of users in the order of their ids reads the index by id
-- alone, so that index holds what the list is filtered by. It can't hold more than 2,704 bytes: the words of users with very many
-- are apart.
CREATE TABLE search_live.search_documents (
    user_key      uuid               PRIMARY KEY,
    user_id       text COLLATE "C"   NOT NULL,
    status_key    uuid,              -- of the status, which may be of any length
    registered_at timestamptz,
    words         tsvector,
    many_words    tsvector,
    document      sightline.document NOT NULL,
    CHECK ((words IS NULL) <> (many_words IS NULL))
-- Pages that were changed since the last vacuum are read beside the index.
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.05);
CREATE INDEX search_documents_by_id ON search_live.search_documents (user_id) INCLUDE (words, status_key, registered_at, user_key);
CREATE INDEX search_documents_of_many_words ON search_live.search_documents (user_id) WHERE many_words IS NOT NULL;
CREATE INDEX search_documents_by_status ON search_live.search_documents (status_key, user_id);
CREATE INDEX search_documents_by_registration ON search_live.search_documents (registered_at);
-- A read would have to look through all that a fast update has left in an index's pending list.
CREATE INDEX search_documents_by_words ON search_live.search_documents USING gin (words) WITH (fastupdate = off);
CREATE INDEX search_documents_by_many_words ON search_live.search_documents USING gin (many_words) WITH (fastupdate = off)
    WHERE many_words IS NOT NULL;

-- All words of all documents, for queries with typos, and in how many documents each is. They are counted log by log, so that
-- partitions don't wait for each other where they count a frequent word.
CREATE TABLE search_live.search_words (
    word      text COLLATE "C" NOT NULL,
    log_id    integer          NOT NULL,
    documents bigint           NOT NULL,
    length    integer          NOT NULL GENERATED ALWAYS AS (char_length(word)) STORED,
    backwards text COLLATE "C" NOT NULL GENERATED ALWAYS AS (reverse(word)) STORED,
    -- What is left without its first and its last third (src/domains/search/similar.rs).
    middle    text COLLATE "C" NOT NULL GENERATED ALWAYS AS (
        substr(word, (char_length(word) + 2) / 3 + 1, char_length(word) - (char_length(word) + 2) / 3 - char_length(word) / 3)) STORED,
    PRIMARY KEY (word, log_id)
) WITH (fillfactor = 90);
CREATE INDEX search_words_by_beginning ON search_live.search_words (length, word);
CREATE INDEX search_words_by_ending ON search_live.search_words (length, backwards);
-- Shorter words are found by their beginnings and endings.
CREATE INDEX search_words_by_middle ON search_live.search_words (length, middle, word) WHERE length >= 6;
