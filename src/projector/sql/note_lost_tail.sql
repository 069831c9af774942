WITH noted AS (
    UPDATE sightline.progress SET lost_tail = true
    WHERE domain = $1 AND version = $2 AND log_id = $3 AND epoch = $4
    RETURNING log_id
)
DELETE FROM sightline.discards d USING noted
WHERE d.domain = $1 AND d.log_id = noted.log_id AND d.record_offset >= $5
