-- Coordinates and reason stay for good; the log may have the rest for longer.
UPDATE sightline.dead_letters
SET value = NULL, headers = NULL, record_key = NULL, erased_at = now()
WHERE erased_at IS NULL AND first_failed_at < now() - make_interval(days => $1)
