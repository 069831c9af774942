-- analytics: the times of the funnel in their order within a year of registrations, so that a median is found without sorting them.
SELECT sightline.in_every_version('analytics', $$
    ALTER TABLE funnel_times
        DROP CONSTRAINT funnel_times_pkey,
        ADD registered_in smallint GENERATED ALWAYS AS (extract(year FROM registered_on)) STORED,
        ADD PRIMARY KEY (step, bucket, registered_in, micros, registered_on, user_key);
$$);
