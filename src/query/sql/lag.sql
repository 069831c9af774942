-- The partitions of the given domains ($1), whose code has these versions in this process ($2), in the version that is shown:
-- progress and books, whether newer code has folded it, the owner, the log end offset as last read, and counts of dead letters.
-- It is one statement, so all figures are from one snapshot. Ages are in seconds, by the database's clock, which also wrote the
-- times.
WITH owners AS MATERIALIZED (
    -- Once: Postgres would read all heartbeats again for each partition.
    SELECT * FROM sightline.partition_owners WHERE domain = ANY ($1)
), dead_letters AS MATERIALIZED (
    -- The condition on the state is the predicate of the index dead_letters_open_by_key. Dead letters of earlier incarnations of
    -- the topic stay open, so they count as well.
    SELECT domain, version, logs.topic, logs.partition,
           count(*) AS open,
           count(DISTINCT key_hash) FILTER (WHERE parks) AS parked_keys
    FROM sightline.dead_letters
    JOIN sightline.logs AS logs USING (log_id)
    WHERE domain = ANY ($1) AND state IN ('parked', 'retrying')
    GROUP BY domain, version, logs.topic, logs.partition
)
SELECT shown.domain,
       shown.state = 'building' AS building,
       shown.pause_reason,
       domains.database_went_back_at IS NOT NULL AS went_back,
       logs.cluster_id,
       logs.topic,
       logs.topic_identity,
       log_id,
       logs.partition,
       progress.start_offset,
       progress.next_offset,
       progress.failure,
       progress.code_version > ours.code_version AS is_of_newer_code,
       logs.added_at IS NOT NULL
           AND sightline.waits_for_partitions(progress.domain, progress.version, progress.log_id) AS waits,
       progress.read,
       progress.applied,
       progress.duplicates,
       progress.skipped,
       progress.dead_lettered,
       progress.holes,
       -- If the position was committed after the log end offset was read, the log ends at the
       -- position at the earliest.
       CASE WHEN ends.read_at < progress.updated_at THEN greatest(ends.log_end_offset, progress.next_offset)
            ELSE ends.log_end_offset END AS end_offset,
       extract(epoch FROM now() - ends.read_at)::float8 AS end_read_age,
       extract(epoch FROM now() - owners.seen_at)::float8 AS owner_age,
       extract(epoch FROM now() - owners.oldest_unapplied_at)::float8 AS oldest_unapplied_age,
       owners.rate,
       owners.failure AS owner_failure,
       coalesce(dead_letters.open, 0) AS open_dead_letters,
       coalesce(dead_letters.parked_keys, 0) AS parked_keys
FROM unnest($1::text[], $2::integer[]) AS ours (domain, code_version)
JOIN sightline.shown_views AS shown USING (domain)
JOIN sightline.domains AS domains USING (domain)
JOIN sightline.progress AS progress USING (domain, version)
JOIN sightline.logs AS logs USING (log_id)
LEFT JOIN owners USING (log_id, domain, version)
LEFT JOIN sightline.log_offsets AS ends USING (log_id)
LEFT JOIN dead_letters USING (domain, version, topic, partition)
WHERE progress.ended_at IS NULL
ORDER BY shown.domain, logs.topic, logs.partition, logs.log_id
