-- Stores the switch from one version ($2) to another ($3), and the changes with another feed position there: those of dead
-- letters.
WITH noted AS (
    INSERT INTO sightline.switches (domain, from_version, to_version) VALUES ($1, $2, $3) RETURNING id
), dead_letters AS (
    -- The feed position of a record's change in each: that of its turn, unless it was a dead letter; none while it is an
    -- open one, or if it changed nothing. remove_moves_without_rows.sql removes those that no feed contains.
    SELECT log_id,
           CASE WHEN o.id IS NULL THEN record_offset + 1 ELSE o.applied_next_offset END AS old_next_offset,
           CASE WHEN o.id IS NULL THEN 0 ELSE o.applied_sequence END AS old_sequence,
           CASE WHEN n.id IS NULL THEN record_offset + 1 ELSE n.applied_next_offset END AS new_next_offset,
           CASE WHEN n.id IS NULL THEN 0 ELSE n.applied_sequence END AS new_sequence
    FROM (SELECT * FROM sightline.dead_letters WHERE domain = $1 AND version = $2) AS o
    FULL JOIN (SELECT * FROM sightline.dead_letters WHERE domain = $1 AND version = $3) AS n USING (log_id, record_offset)
), moved AS (
    INSERT INTO sightline.moved_changes (switch_id, log_id, from_next_offset, from_sequence, until_next_offset, until_sequence)
    SELECT noted.id, log_id,
           least(old_next_offset, new_next_offset),
           CASE WHEN old_next_offset = new_next_offset THEN least(old_sequence, new_sequence)
                WHEN old_next_offset < new_next_offset OR new_next_offset IS NULL THEN old_sequence
                ELSE new_sequence END,
           CASE WHEN num_nulls(old_next_offset, new_next_offset) = 0 THEN greatest(old_next_offset, new_next_offset) END,
           CASE WHEN old_next_offset = new_next_offset THEN greatest(old_sequence, new_sequence)
                WHEN old_next_offset > new_next_offset THEN old_sequence
                WHEN old_next_offset < new_next_offset THEN new_sequence END
    FROM noted, dead_letters
    WHERE (old_next_offset, old_sequence) IS DISTINCT FROM (new_next_offset, new_sequence)
)
SELECT id FROM noted
