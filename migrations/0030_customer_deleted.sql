-- Deletions of customers in the feed, as watches tell them: with the customer's deletedAt, which a hard deletion after a soft one
-- does not move.
SELECT sightline.in_every_version('order', $$
    UPDATE address_changes AS c
    SET change = jsonb_build_object('userId', c.user_id, 'deletedAt', u.state::jsonb -> 'customer' -> 'deletedAt',
                                    'deletionType', c.deletion_type)::text
    FROM users AS u
    WHERE c.deletion_type IS NOT NULL AND (u.user_key, u.user_id) = (c.user_key, c.user_id);
$$);
