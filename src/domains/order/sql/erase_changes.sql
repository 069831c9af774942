-- That they were deleted goes on being told: whoever mirrors addresses must hear of it.
DELETE FROM address_changes
WHERE user_key = ANY ($1) AND kind <> 'customer_deleted'
