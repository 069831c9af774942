-- Takes the next rows ($5) of these users ($1) after a place in the order of the keys ($2 to $4). The caller inserts again what
-- remains of them.
DELETE FROM user_history h
USING (
    SELECT user_key, revision, sequence
    FROM user_history
    WHERE user_key = ANY ($1) AND (user_key, revision, sequence) > ($2, $3, $4)
    ORDER BY user_key, revision, sequence
    LIMIT $5
) n
WHERE (h.user_key, h.revision, h.sequence) = (n.user_key, n.revision, n.sequence)
RETURNING h.user_key, h.revision, h.sequence, h.occurred_at, h.log_id, h.record_offset, h.fact
