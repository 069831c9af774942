-- The bytes of a record's key and headers, which count in the limit of a retry as its value does. They stay known when the
-- bytes are erased: a retry fetches them again.
ALTER TABLE sightline.dead_letters ADD key_and_headers_size bigint NOT NULL DEFAULT 0;

UPDATE sightline.dead_letters
SET key_and_headers_size = coalesce(octet_length(record_key), 0) + coalesce(octet_length(headers::text), 0)
WHERE state IN ('parked', 'retrying');
