-- Every partition of the asked domains ($1) as the view that is shown has it: progress and books, the owner,
-- the last reading of the log's end, and the letters. One statement, so one snapshot. All ages are by the
-- database's clock, which wrote the times.
SELECT shown.domain,
       shown.state = 'building' AS building,
       shown.pause_reason,
       domains.database_went_back_at IS NOT NULL AS went_back,
       logs.cluster_id,
       logs.topic,
       logs.topic_identity,
       logs.partition,
       progress.start_offset,
       progress.next_offset,
       progress.failure,
       progress.read,
       progress.applied,
       progress.duplicates,
       progress.skipped,
       progress.dead_lettered,
       progress.holes,
       -- Where the position is younger than the reading of the end, the log reaches at least to it.
       CASE WHEN ends.read_at < progress.updated_at THEN greatest(ends.log_end_offset, progress.next_offset)
            ELSE ends.log_end_offset END AS end_offset,
       extract(epoch FROM now() - ends.read_at)::float8 AS end_read_age,
       extract(epoch FROM now() - owners.seen_at)::float8 AS owner_age,
       extract(epoch FROM now() - owners.oldest_unapplied_at)::float8 AS oldest_unapplied_age,
       owners.rate,
       owners.failure AS owner_failure,
       letters.open AS open_letters,
       letters.parked_keys
FROM sightline.shown_views AS shown
JOIN sightline.domains AS domains USING (domain)
JOIN sightline.progress AS progress USING (domain, version)
JOIN sightline.logs AS logs USING (log_id)
LEFT JOIN sightline.owners AS owners USING (domain, version, log_id)
LEFT JOIN sightline.log_offsets AS ends USING (log_id)
CROSS JOIN LATERAL (
    -- The predicate of the index dead_letters_open.
    SELECT count(*) AS open,
           count(DISTINCT dead.key_hash) FILTER (WHERE dead.parks) AS parked_keys
    FROM sightline.dead_letters AS dead
    WHERE dead.domain = shown.domain
      AND dead.version = shown.version
      -- Those of a former incarnation of the topic, too: they are open.
      AND dead.log_id IN (SELECT same.log_id FROM sightline.logs AS same
                          WHERE same.topic = logs.topic AND same.partition = logs.partition)
      AND dead.state IN ('parked', 'retrying')
) AS letters
WHERE shown.domain = ANY ($1) AND progress.ended_at IS NULL
ORDER BY shown.domain, logs.topic, logs.partition, logs.log_id
