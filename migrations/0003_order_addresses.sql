-- order: addresses as of a time, and the feed of their changes.

-- Forgetting walks a log's ids from the oldest on. A BRIN index told where that is only while rows lay in the
-- order of time, which ends when the room of deleted ones is used again.
CREATE OR REPLACE FUNCTION sightline.create_view(p_domain text, p_version integer, p_schema text, p_state text, p_code_version integer)
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
    EXECUTE format('CREATE INDEX seen_events_by_time ON %I.seen_events (log_id, log_time)', p_schema);
END $$;

-- What order stored so far lacks what happened before: the view is projected anew, from where it began.
DELETE FROM sightline.views WHERE domain = 'order';
DELETE FROM sightline.owners WHERE domain = 'order';
DO $$
DECLARE s text;
BEGIN
    FOR s IN SELECT nspname FROM pg_namespace WHERE nspname = 'order_live' OR nspname ~ '^order_v[0-9]+$' LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', s);
    END LOOP;
END $$;

SELECT sightline.create_view('order', 1, 'order_live', 'live', 2);

-- The state of a customer, addresses included, is one row: ready to be folded onto and to be read in one look-up
-- (docs/performance.md has the figures for that choice).
CREATE TABLE order_live.users (
    user_key uuid    PRIMARY KEY,  -- the first 16 bytes of the user id's SHA-256
    user_id  text    NOT NULL,
    log_id   integer,              -- the one log that this row is made from; null where there were several
    logs     integer NOT NULL,     -- from how many logs the view was made then: when it is other now, the user may have moved
    revision bigint  NOT NULL,     -- counts the writes: a fold of an older one is not written
    state    jsonb   NOT NULL
) WITH (fillfactor = 90);          -- room for the next version of a row beside it

-- What events told of a customer's addresses, in the order in which it was folded.
CREATE TABLE order_live.user_history (
    user_key      uuid        NOT NULL,
    revision      bigint      NOT NULL,  -- of the row that it led to
    sequence      integer     NOT NULL,
    occurred_at   timestamptz NOT NULL,
    log_id        integer     NOT NULL,
    record_offset bigint      NOT NULL,
    fact          jsonb       NOT NULL,
    PRIMARY KEY (user_key, revision, sequence)
);

-- The feed. A log's entries become visible in the order of their places, since one transaction at a time moves
-- its progress: whoever has read up to a place has missed nothing before it.
CREATE TABLE order_live.address_changes (
    log_id          integer     NOT NULL,
    next_offset     bigint      NOT NULL,
    sequence        bigint      NOT NULL,
    user_key        uuid        NOT NULL,
    user_id         text        NOT NULL,
    kind            text        NOT NULL,
    address_id      text,                   -- of `customer_deleted` there is none
    affects_shipping boolean    NOT NULL,
    affects_billing boolean     NOT NULL,
    significant     boolean     NOT NULL,
    before          jsonb,
    after           jsonb,
    deletion_type   text,                   -- of `customer_deleted` only
    occurred_at     timestamptz NOT NULL,
    event_id        text        NOT NULL,
    PRIMARY KEY (log_id, next_offset, sequence)
);
CREATE INDEX address_changes_of_user ON order_live.address_changes (user_key, log_id, next_offset, sequence);
