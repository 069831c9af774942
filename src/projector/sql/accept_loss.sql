-- Partitions whose log is not what it was go on without what is lost, as far as that can be done in place:
-- behind a gap, where retention passed the position (what is lost counts as holes: offsets that hold no record);
-- with a topic that was created anew, whose partitions are other logs, and begin at their beginning.
-- A log that lost its tail is gone on with once it has grown past the position; before, its offsets would come twice,
-- and it fails again.
WITH gaps AS (
    SELECT p.domain, p.version, p.log_id, e.log_start_offset
    FROM sightline.progress p
    JOIN sightline.log_offsets e USING (log_id)
    WHERE p.domain = $1 AND p.failure = 'log_truncated' AND e.log_start_offset > p.next_offset
      AND e.read_at > now() - interval '10 seconds'
)
UPDATE sightline.progress AS p
SET next_offset = coalesce(g.log_start_offset, p.next_offset),
    holes       = p.holes + coalesce(g.log_start_offset - p.next_offset, 0),
    ended_at    = CASE WHEN p.failure = 'topic_recreated' THEN now() END,
    last_offset = NULL,
    last_record = NULL,
    failure     = CASE WHEN g.log_id IS NULL AND p.failure = 'log_truncated' THEN p.failure END,
    updated_at  = now()
FROM sightline.progress AS before
LEFT JOIN gaps g USING (domain, version, log_id)
WHERE before.domain = $1 AND before.failure IS NOT NULL AND before.ended_at IS NULL
  AND (p.domain, p.version, p.log_id) = (before.domain, before.version, before.log_id)
