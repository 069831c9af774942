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

-- The users of each facet: a country, a city, a language, or one value of one preference, by a hash of kind, path and value.
-- Rows are inserted and deleted, never updated, and read from the index alone.
CREATE TABLE personalization_live.segment_members (
    facet   uuid NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (facet, user_id)
);

-- Users who have both facets, by a merge of the two in the order of the index. The planner does not know which facets are asked
-- for, takes them for small, and would look each user up, or hash them, which takes five times as long where they are large. Of a
-- facet that is null nothing is read.
CREATE OR REPLACE FUNCTION sightline.users_with_both_facets(one uuid, other uuid)
RETURNS SETOF text LANGUAGE sql STABLE STRICT
SET enable_nestloop = off SET enable_hashjoin = off
AS $$
    SELECT x.user_id
    FROM personalization_live.segment_members AS x
    JOIN personalization_live.segment_members AS y ON y.user_id = x.user_id
    WHERE x.facet = one AND y.facet = other
$$;
