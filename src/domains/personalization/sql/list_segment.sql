-- A page of the users who have all facets ($1), from the user id after which it begins ($2), how many users that are in all, and
-- the positions of all logs, in one snapshot. The users of one facet are read and counted in the index. Of several facets, the
-- two with the fewest users lead. If the first has few, each of its users is looked up under the others. Else the two are merged,
-- and the result is looked up under the rest.
WITH logs AS (
    SELECT p.log_id, p.next_offset
    FROM personalization_live.view_version v
    JOIN sightline.progress p ON p.domain = 'personalization' AND p.version = v.version
), sizes AS (
    SELECT array_agg(f.facet ORDER BY s.users, f.facet) AS facets, min(s.users) < 20000 AS has_few
    FROM unnest($1::uuid[]) AS f (facet)
    CROSS JOIN LATERAL (
        SELECT count(*) AS users
        FROM (SELECT FROM personalization_live.segment_members m WHERE m.facet = f.facet LIMIT 20000) m
    ) s
    WHERE cardinality($1) > 1
), lead AS (
    -- Nothing is read under a facet that is null.
    SELECT CASE WHEN cardinality($1) = 1 THEN $1[1] END AS single,
           CASE WHEN has_few THEN facets[1] END AS few,
           CASE WHEN NOT has_few THEN facets[1] END AS many,
           CASE WHEN NOT has_few THEN facets[2] END AS many_others,
           CASE WHEN has_few THEN facets[2:] ELSE facets[3:] END AS others
    FROM sizes
), found AS MATERIALIZED (
    SELECT m.user_id
    FROM (
        SELECT m.user_id
        FROM personalization_live.segment_members m
        WHERE m.facet = (SELECT few FROM lead)
        UNION ALL
        SELECT b.user_id
        FROM lead
        CROSS JOIN LATERAL sightline.users_with_both_facets(lead.many, lead.many_others) AS b (user_id)
    ) m
    WHERE (SELECT cardinality(others) FROM lead) = 0
       OR (SELECT count(*) FROM personalization_live.segment_members o
           WHERE o.facet = ANY ((SELECT others FROM lead)::uuid[]) AND o.user_id = m.user_id)
          = (SELECT cardinality(others) FROM lead)
), page AS (
    (SELECT m.user_id
     FROM personalization_live.segment_members m
     WHERE m.facet = (SELECT single FROM lead) AND m.user_id > $2 COLLATE "C"
     ORDER BY m.user_id
     LIMIT $3)
    UNION ALL
    (SELECT f.user_id
     FROM found f
     WHERE f.user_id > $2 COLLATE "C"
     ORDER BY f.user_id
     LIMIT $3)
)
SELECT coalesce((SELECT array_agg(user_id ORDER BY user_id) FROM page), '{}') AS "user_ids!",
       (SELECT count(*) FROM found)
       + (SELECT count(*) FROM personalization_live.segment_members m WHERE m.facet = (SELECT single FROM lead)) AS "total_size!",
       (SELECT ready FROM personalization_live.view_version) AS "ready!",
       coalesce(array_agg(log_id), '{}') AS "logs!", coalesce(array_agg(next_offset), '{}') AS "offsets!"
FROM logs
