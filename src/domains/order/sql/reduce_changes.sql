-- Of deleted customers' addresses ids and countries remain, so that orders can still refer to them.
UPDATE address_changes AS c
SET change = jsonb_strip_nulls(d.change || jsonb_build_object('before', reduced.before, 'after', reduced.after))::text
FROM address_changes AS a
CROSS JOIN LATERAL (SELECT a.change::jsonb AS change) AS d
CROSS JOIN LATERAL (
    SELECT CASE WHEN d.change ? 'before'
                THEN jsonb_build_object('addressId', d.change #> '{before,addressId}', 'country', d.change #> '{before,country}')
           END AS before,
           CASE WHEN d.change ? 'after'
                THEN jsonb_build_object('addressId', d.change #> '{after,addressId}', 'country', d.change #> '{after,country}')
           END AS after
) AS reduced
WHERE a.user_key = ANY ($1) AND a.deletion_type IS NULL
  AND (c.log_id, c.next_offset, c.sequence) = (a.log_id, a.next_offset, a.sequence)
