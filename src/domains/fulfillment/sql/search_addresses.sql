-- A page of addresses, and the positions of all logs, in one snapshot. Each status ($1) is read
-- separately, from the keys after which the page begins ($4, $5), so that an index returns the rows in
-- order. One of the two branches is run: which one depends on whether there is a country ($2).
WITH logs AS (
    SELECT p.log_id, p.next_offset
    FROM fulfillment_live.view_version v
    JOIN sightline.progress p ON p.domain = 'fulfillment' AND p.version = v.version
), page AS (
    SELECT a.*
    FROM unnest($1::text[]) AS s (status)
    CROSS JOIN LATERAL (
        (SELECT c.address_key, c.user_key, c.address
         FROM fulfillment_live.shipping_addresses c
         WHERE $2::uuid IS NULL AND c.status = s.status
           AND (c.address_key, c.user_key) > ($4, $5)
         ORDER BY c.address_key, c.user_key
         LIMIT $3)
        UNION ALL
        (SELECT c.address_key, c.user_key, c.address
         FROM fulfillment_live.shipping_addresses c
         WHERE $2::uuid IS NOT NULL AND c.country_key = $2 AND c.status = s.status
           AND (c.address_key, c.user_key) > ($4, $5)
         ORDER BY c.address_key, c.user_key
         LIMIT $3)
    ) a
    ORDER BY a.address_key, a.user_key
    LIMIT $3
), sized AS (
    SELECT *, sum(octet_length(address))
              OVER (ORDER BY address_key, user_key ROWS BETWEEN UNBOUNDED PRECEDING AND 2 PRECEDING) AS bytes_before
    FROM page
), found AS (
    SELECT array_agg(address_key) AS address_keys, array_agg(user_key) AS user_keys, array_agg(address) AS addresses
    FROM (
        SELECT *
        FROM sized
        -- An answer holds 3 MiB. This much text is more than that. A row of it alone is followed by another one, so that it shows
        -- that more follow.
        WHERE coalesce(bytes_before, 0) < 8 * 1024 * 1024
        ORDER BY address_key, user_key
    ) s
)
SELECT coalesce((SELECT address_keys FROM found), '{}') AS "address_keys!",
       coalesce((SELECT user_keys FROM found), '{}') AS "user_keys!",
       coalesce((SELECT addresses FROM found)::text[], '{}') AS "addresses!",
       (SELECT ready FROM fulfillment_live.view_version) AS "ready!",
       coalesce(array_agg(log_id), '{}') AS "logs!", coalesce(array_agg(next_offset), '{}') AS "offsets!"
FROM logs
