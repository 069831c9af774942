-- personalization: profiles to tailor by, and the users who have something in common.
SELECT sightline.create_view('personalization', 1, 'personalization_live', 'live', 1);

-- What a profile is made from (the form is that of order_live.users).
CREATE TABLE personalization_live.users (
    user_key uuid               PRIMARY KEY,
    user_id  text               NOT NULL,
    log_id   integer,
    logs     integer            NOT NULL,
    revision bigint             NOT NULL,
    state    sightline.document NOT NULL
) WITH (fillfactor = 90);

-- Who has a facet: a country, a city, a language, or one value of one preference, by a hash of kind, path and value.
-- Rows are inserted and deleted, never updated, and read from the index alone.
CREATE TABLE personalization_live.segment_members (
    facet   uuid NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (facet, user_id)
);
