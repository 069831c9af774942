-- How long an event id is remembered: docs/events.md, "Duplicates".

-- Stream time begins at 1970-01-01, so that a young partition expires ids late rather than early.
UPDATE sightline.progress SET stream_time = 'epoch' WHERE stream_time IS NULL;
ALTER TABLE sightline.progress
    ALTER stream_time SET DEFAULT 'epoch',
    ALTER stream_time SET NOT NULL;
