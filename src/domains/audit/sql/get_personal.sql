-- What is personal in entries of a user ($1), after the last one of the slice before ($2 to $6), in the order of the index.
SELECT log_id, sequence, action, occurred_at, partition, record_offset, ip_address, user_agent, changed_values::text AS changed_values,
       salts AS "salts!"
FROM entries
WHERE user_key = $1 AND (action, occurred_at, partition, record_offset, log_id) > ($2, $3, $4, $5, $6)
  AND salts IS NOT NULL
ORDER BY action, occurred_at, partition, record_offset, log_id
LIMIT $7
