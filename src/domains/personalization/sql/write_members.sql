-- Facets that users lost ($1, $2) and got ($3, $4): different rows, so the order of the two does not matter. A row that is there
-- already is of code that knew a facet otherwise.
WITH lost AS (
    DELETE FROM segment_members AS m
    USING unnest($1::uuid[], $2::text[]) AS l (facet, user_id)
    WHERE m.facet = l.facet AND m.user_id = l.user_id
)
INSERT INTO segment_members (facet, user_id)
SELECT g.facet, g.user_id
FROM unnest($3::uuid[], $4::text[]) AS g (facet, user_id)
ON CONFLICT DO NOTHING
