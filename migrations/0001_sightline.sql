-- What no rebuild of a view touches: which versions of a view there are, how far each has come,
-- its dead letters, and who is at work.

CREATE SCHEMA sightline;

-- The versions of each domain's view. A version's tables live in one schema: `<domain>_live` for the
-- version that is read, `<domain>_v<version>` for one that is being built or was retired.
CREATE TABLE sightline.views (
    domain       text        NOT NULL,
    version      integer     NOT NULL CHECK (version > 0),
    schema_name  text        NOT NULL UNIQUE,
    state        text        NOT NULL CHECK (state IN ('live', 'building', 'retired')),
    code_version integer     NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (domain, version)
);
CREATE UNIQUE INDEX views_one_live ON sightline.views (domain) WHERE state = 'live';

-- One partition of one incarnation of a topic. A topic that was deleted and created again has another
-- identity, so its partitions are other logs, whose offsets mean nothing to the positions of the old ones.
CREATE TABLE sightline.logs (
    log_id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster_id     text    NOT NULL,
    topic          text    NOT NULL,
    topic_identity text    NOT NULL,
    partition      integer NOT NULL CHECK (partition >= 0),
    UNIQUE (topic, topic_identity, partition)
);

-- How far a version of a view has come in a log, and the books of how it got there. It is updated in the
-- transaction of the data it speaks of, after a comparison of epoch and next_offset: that makes a
-- redelivery harmless, decides a COMMIT whose answer was lost, and fences an owner who was superseded.
-- The epoch is raised by whoever changes what the owner may assume.
CREATE TABLE sightline.progress (
    domain         text        NOT NULL,
    version        integer     NOT NULL,
    log_id         integer     NOT NULL REFERENCES sightline.logs,
    epoch          bigint      NOT NULL DEFAULT 0,
    start_offset   bigint      NOT NULL,
    next_offset    bigint      NOT NULL,
    -- The largest Kafka timestamp so far, moved by no record for more than a day: by it, never by a
    -- clock, event ids are forgotten, so that every replay forgets at the same places.
    log_time       timestamptz,
    -- A partition that appeared later waits until the older ones have reached the ends that they had
    -- then: {"<partition>": <offset>, …} of the same topic.
    held_until     jsonb,
    -- Why projection stands still until an operator decides, else null.
    failure        text,
    read           bigint      NOT NULL DEFAULT 0,
    applied        bigint      NOT NULL DEFAULT 0,
    duplicates     bigint      NOT NULL DEFAULT 0,
    skipped        bigint      NOT NULL DEFAULT 0,
    dead_lettered  bigint      NOT NULL DEFAULT 0,
    holes          bigint      NOT NULL DEFAULT 0,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (domain, version, log_id),
    FOREIGN KEY (domain, version) REFERENCES sightline.views ON DELETE CASCADE,
    -- The books balance, or the transaction fails.
    CONSTRAINT books_balance CHECK (read = applied + duplicates + skipped + dead_lettered),
    CONSTRAINT position_balances CHECK (next_offset = start_offset + read + holes)
) WITH (fillfactor = 50);

-- Records that could not be applied, and those of the same key that came behind them. A key is parked
-- while it has a letter in state `parked` or `retrying` that parks.
CREATE TABLE sightline.dead_letters (
    id              uuid        PRIMARY KEY,
    domain          text        NOT NULL,
    version         integer     NOT NULL,
    log_id          integer     NOT NULL REFERENCES sightline.logs,
    record_offset   bigint      NOT NULL,
    record_time     timestamptz,
    record_key      bytea,
    key_hash        uuid,
    event_id        text,
    event_type      text,
    occurred_at     timestamptz,
    reason          text        NOT NULL,
    field           text,
    class           text        NOT NULL CHECK (class IN ('data', 'schema', 'bug', 'parked')),
    state           text        NOT NULL CHECK (state IN ('parked', 'retrying', 'discarded', 'applied')),
    resolution      text,
    parks           boolean     NOT NULL,
    attempts        integer     NOT NULL DEFAULT 1,
    code_version    integer     NOT NULL,
    first_failed_at timestamptz NOT NULL DEFAULT now(),
    last_failed_at  timestamptz NOT NULL DEFAULT now(),
    size            bigint      NOT NULL,
    headers         jsonb,      -- [[name, base64 of the value or null], …]
    value           bytea,
    UNIQUE (domain, version, log_id, record_offset),
    FOREIGN KEY (domain, version) REFERENCES sightline.views ON DELETE CASCADE
);
CREATE INDEX dead_letters_open ON sightline.dead_letters (domain, version, log_id, key_hash, record_offset)
    WHERE state IN ('parked', 'retrying');

-- How often a type that nobody knows was read, by its name: what a newer release might understand.
CREATE TABLE sightline.unknown_types (
    domain     text    NOT NULL,
    version    integer NOT NULL,
    log_id     integer NOT NULL REFERENCES sightline.logs,
    event_type text    NOT NULL CHECK (length(event_type) <= 100),
    events     bigint  NOT NULL,
    PRIMARY KEY (domain, version, log_id, event_type),
    FOREIGN KEY (domain, version) REFERENCES sightline.views ON DELETE CASCADE
);

-- Who projects a log, by a heartbeat every two seconds; apart from progress, so that a heartbeat never
-- waits for a batch.
CREATE TABLE sightline.owners (
    domain              text        NOT NULL,
    version             integer     NOT NULL,
    log_id              integer     NOT NULL,
    instance            uuid        NOT NULL,
    epoch               bigint      NOT NULL,
    seen_at             timestamptz NOT NULL,
    -- The Kafka timestamp of the oldest record that is read but not applied.
    oldest_unapplied_at timestamptz,
    -- Records per second, lately.
    rate                double precision NOT NULL,
    -- What holds the owner up at the moment (it goes on trying), else null.
    failure             text,
    PRIMARY KEY (domain, version, log_id)
) WITH (fillfactor = 50);

-- The last reading of each log's ends.
CREATE TABLE sightline.log_ends (
    log_id       integer     PRIMARY KEY REFERENCES sightline.logs,
    start_offset bigint      NOT NULL,
    end_offset   bigint      NOT NULL,
    read_at      timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Creates the schema of a view's version with what every view has:
-- view_version  which version this schema holds, and from how many logs it is made;
-- seen_events   the ids of the events that were applied, by the first 16 bytes of their SHA-256.
CREATE FUNCTION sightline.create_view(p_domain text, p_version integer, p_schema text, p_state text, p_code_version integer)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO sightline.views (domain, version, schema_name, state, code_version)
    VALUES (p_domain, p_version, p_schema, p_state, p_code_version);
    EXECUTE format('CREATE SCHEMA %I', p_schema);
    EXECUTE format('CREATE TABLE %I.view_version (version integer NOT NULL, logs integer NOT NULL)', p_schema);
    EXECUTE format('INSERT INTO %I.view_version VALUES (%s, 0)', p_schema, p_version);
    EXECUTE format('CREATE TABLE %I.seen_events (
        event_hash    uuid        NOT NULL,
        log_id        integer     NOT NULL,
        record_offset bigint      NOT NULL,
        log_time      timestamptz,
        PRIMARY KEY (event_hash, log_id))', p_schema);
    -- Forgetting walks by time, and rows lie in the order of time: a BRIN index costs next to nothing.
    EXECUTE format('CREATE INDEX seen_events_by_time ON %I.seen_events USING brin (log_time)', p_schema);
END $$;
