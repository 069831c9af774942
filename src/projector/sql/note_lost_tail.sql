WITH noted AS (
    UPDATE sightline.progress SET lost_tail = true WHERE domain = $1 AND version = $2 AND log_id = $3
)
DELETE FROM sightline.discards WHERE domain = $1 AND log_id = $3 AND record_offset >= $4
