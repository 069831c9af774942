-- Of deleted customers' addresses ids and countries are left, so that orders keep something to point at.
UPDATE address_changes
SET before = jsonb_strip_nulls(jsonb_build_object('addressId', before -> 'addressId', 'country', before -> 'country')),
    after  = jsonb_strip_nulls(jsonb_build_object('addressId', after -> 'addressId', 'country', after -> 'country'))
WHERE user_key = ANY ($1) AND kind <> 'customer_deleted'
