-- Raises the epochs of a domain by a random number, after the database was restored to an earlier state: the epochs that
-- followed that state were used before the restore, by owners that may still live, and in positions of feeds that readers
-- have. The number is at least 65,536, by which raise_is_due.sql recognizes it. An epoch has to stay below 2^31 (feed positions),
-- so some 500 restores fit, each of which raises epochs once. Rows are locked in key order, as in all transactions that lock
-- several of these.
WITH locked AS (
    SELECT version, log_id FROM sightline.progress WHERE domain = $1 ORDER BY version, log_id FOR UPDATE
)
UPDATE sightline.progress AS p
SET epoch = p.epoch + 65536 + floor(random() * 4128768)::bigint
FROM locked
WHERE p.domain = $1 AND (p.version, p.log_id) = (locked.version, locked.log_id)
