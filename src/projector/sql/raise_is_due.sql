-- Whether the epochs of a domain ($1) are still to be raised because its database was restored. These logs ($3) of a version
-- ($2) show that, and had these epochs ($4) when it was found. The epochs were raised for the same restore if a log's epoch has
-- risen since by more than claims and retries raise it in that time (raise_epochs.sql); or if the restore was noted a short while
-- ago, and the log, in which it was found later, was not projected in between.
SELECT EXISTS (
    SELECT
    FROM unnest($3::integer[], $4::bigint[]) AS found (log_id, epoch)
    JOIN sightline.progress AS p ON (p.domain, p.version, p.log_id) = ($1, $2, found.log_id)
    JOIN sightline.domains AS d ON d.domain = p.domain
    WHERE p.epoch - found.epoch < 65536
      AND (d.database_went_back_at > greatest(p.updated_at, now() - interval '10 minutes')) IS NOT TRUE
) AS "is_due!"
