-- Of deleted customers' addresses ids and countries remain, so that orders can still refer to them.
UPDATE address_changes
SET before = CASE WHEN before IS NOT NULL
                  THEN jsonb_strip_nulls(jsonb_build_object('addressId', before -> 'addressId', 'country', before -> 'country')) END,
    after  = CASE WHEN after IS NOT NULL
                  THEN jsonb_strip_nulls(jsonb_build_object('addressId', after -> 'addressId', 'country', after -> 'country')) END
WHERE user_key = ANY ($1) AND kind <> 'customer_deleted'
