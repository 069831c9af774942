-- For each log ($1), run ($2) and hash ($3): whether the run exists, and its block in which the id would be.
SELECT a.number AS "number!", r.run IS NOT NULL AS "exists!", coalesce(r.ids, b.ids) AS ids
FROM unnest($1::integer[], $2::bigint[], $3::uuid[]) WITH ORDINALITY AS a (log_id, run, hash, number)
LEFT JOIN LATERAL (SELECT * FROM event_id_runs WHERE (log_id, run) = (a.log_id, a.run) LIMIT 1) r ON true
LEFT JOIN LATERAL (
    SELECT c.ids
    FROM event_id_blocks c
    WHERE c.log_id = r.log_id AND c.run = r.run AND c.first_hash <= a.hash
    ORDER BY c.first_hash DESC
    LIMIT 1
) b ON true
