-- Lets partitions of a domain ($1) whose log has changed go on without what is lost:
-- behind a gap, where retention has passed the position (lost offsets count as holes, which hold no record);
-- with a topic that was created again, whose partitions are other logs and begin at their log start offset.
-- A log that lost its tail goes on only once it has grown past the position. Before, its offsets would come twice,
-- so it fails again.
WITH gaps AS (
    SELECT p.domain, p.version, p.log_id, e.log_start_offset
    FROM sightline.progress p
    JOIN sightline.log_offsets e USING (log_id)
    WHERE p.domain = $1 AND p.failure = 'log_truncated' AND e.log_start_offset > p.next_offset
      AND e.read_at BETWEEN now() - interval '10 seconds' AND now() + interval '2 seconds'
)
UPDATE sightline.progress AS p
SET next_offset = coalesce(g.log_start_offset, p.next_offset),
    holes       = p.holes + coalesce(g.log_start_offset - p.next_offset, 0),
    ended_at    = CASE WHEN p.failure = 'topic_recreated' THEN now() END,
    last_offset = NULL,
    last_record = NULL,
    -- What the log held up to then is not waited for.
    ready_offset = CASE WHEN p.ready_offset IS NOT NULL THEN coalesce(e.log_end_offset, p.ready_offset) END,
    failure     = CASE WHEN g.log_id IS NULL AND p.failure = 'log_truncated' THEN p.failure END,
    updated_at  = now()
FROM sightline.progress AS before
LEFT JOIN gaps g USING (domain, version, log_id)
LEFT JOIN sightline.log_offsets e USING (log_id)
WHERE before.domain = $1 AND before.failure IS NOT NULL AND before.ended_at IS NULL
  AND (p.domain, p.version, p.log_id) = (before.domain, before.version, before.log_id)
