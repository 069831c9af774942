-- analytics: daily counts, funnel, retention, and users' activity.
SELECT sightline.create_view('analytics', 1, 'analytics_live', 'live', 1);

-- Each user's activity, ready to be folded onto and to be read (the form is that of order_live.users).
CREATE TABLE analytics_live.users (
    user_key uuid               PRIMARY KEY,
    user_id  text               NOT NULL,
    log_id   integer,
    logs     integer            NOT NULL,
    revision bigint             NOT NULL,
    state    sightline.document NOT NULL
) WITH (fillfactor = 90);

-- Counters are split into shards, which reads sum up: batches of different partitions seldom write the same row. The shard
-- follows from the event's log; of uniqueLogins, funnel and retention, from the smallest id of the logs that the user's
-- events are from. So a rebuild makes the same rows.

-- Events by UTC day, metric, and breakdown (a registration's source, say; empty where the metric has none).
CREATE TABLE analytics_live.daily_counts (
    day       date             NOT NULL,
    metric    text COLLATE "C" NOT NULL,
    breakdown text COLLATE "C" NOT NULL,  -- at most 100 characters
    shard     smallint         NOT NULL,
    count     bigint           NOT NULL,
    PRIMARY KEY (day, metric, breakdown, shard)
) WITH (fillfactor = 70);

-- Users who have registered on a day and reached a step of the funnel, by the time from registration to the step, in
-- buckets: a median is first sought among these. A row whose count falls to 0 is deleted.
CREATE TABLE analytics_live.funnel_counts (
    registered_on date     NOT NULL,
    step          smallint NOT NULL,
    bucket        smallint NOT NULL,
    shard         smallint NOT NULL,
    count         bigint   NOT NULL,
    PRIMARY KEY (registered_on, step, bucket, shard)
) WITH (fillfactor = 70);

-- The exact times of the same users (at registration, the first step, the time is 0): a median is read from one bucket.
CREATE TABLE analytics_live.funnel_times (
    step          smallint NOT NULL,
    bucket        smallint NOT NULL,
    registered_on date     NOT NULL,
    micros        bigint   NOT NULL,
    user_key      uuid     NOT NULL,
    PRIMARY KEY (step, bucket, registered_on, micros, user_key)
);

-- Users who have registered on a day and logged in in the n-th ISO week after that of their registration. A row whose
-- count falls to 0 is deleted.
CREATE TABLE analytics_live.retention_counts (
    registered_on date     NOT NULL,
    week          smallint NOT NULL,
    shard         smallint NOT NULL,
    count         bigint   NOT NULL,
    PRIMARY KEY (registered_on, week, shard)
) WITH (fillfactor = 70);
