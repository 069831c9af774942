-- What operators decide about views and dead letters, kept over restarts and rebuilds.

-- What is known of a domain, whatever versions its view has.
CREATE TABLE sightline.domains (
    domain                text    PRIMARY KEY,
    -- No number is given to two versions: positions that were told of one mean nothing in another.
    last_version          integer NOT NULL,
    -- Since when the database is known to have been restored to an earlier state, until an operator takes note.
    database_went_back_at timestamptz
);
INSERT INTO sightline.domains SELECT domain, max(version) FROM sightline.views GROUP BY domain;

CREATE OR REPLACE FUNCTION sightline.create_view(p_domain text, p_version integer, p_schema text, p_state text, p_code_version integer)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO sightline.domains (domain, last_version) VALUES (p_domain, p_version)
    ON CONFLICT (domain) DO UPDATE SET last_version = greatest(domains.last_version, EXCLUDED.last_version);
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

ALTER TABLE sightline.views
    -- Projection of a version stands still while it is paused.
    ADD paused_at    timestamptz,
    ADD paused_by    text CHECK (paused_by IN ('operator', 'sightline')),
    ADD pause_reason text,
    ADD resumed_at   timestamptz,
    ADD retired_at   timestamptz,
    -- Built although the log no longer reached back to where the view began.
    ADD accepts_loss boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT a_pause_is_whole CHECK (num_nulls(paused_at, paused_by, pause_reason) IN (0, 3));
UPDATE sightline.views SET retired_at = now() WHERE state = 'retired';

-- Changes tables of a view, which the statement names without their schema, in every version that there is.
CREATE FUNCTION sightline.in_every_version(p_domain text, p_statement text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    before text := current_setting('search_path');
    schema text;
BEGIN
    FOR schema IN SELECT schema_name FROM sightline.views WHERE domain = p_domain LOOP
        PERFORM set_config('search_path', quote_ident(schema), true);
        EXECUTE p_statement;
    END LOOP;
    PERFORM set_config('search_path', before, true);
END $$;

-- The version of each domain's view that is shown to callers: the live one; the newest that is being built where none
-- is live yet.
CREATE VIEW sightline.shown_views AS
SELECT DISTINCT ON (domain) *
FROM sightline.views
WHERE state IN ('live', 'building')
ORDER BY domain, state = 'live' DESC, version DESC;

-- The log is no more (its topic was created anew), and an operator took that for granted: nothing comes of it any
-- more, what came of it stays.
ALTER TABLE sightline.progress
    ADD ended_at    timestamptz,
    -- The log was found to have lost its tail once: what was read of it need not be what is there now.
    ADD lost_tail   boolean NOT NULL DEFAULT false,
    -- Where the last record stood that was read, and its fingerprint: something else there, and the log is another one.
    ADD last_offset bigint,
    ADD last_record uuid,
    ADD CONSTRAINT last_is_whole CHECK (num_nulls(last_offset, last_record) IN (0, 2));

ALTER TABLE sightline.dead_letters
    -- The log's time behind the record, by which its id is remembered once it is applied.
    ADD log_time            timestamptz,
    ADD resolved_at         timestamptz,
    -- Where the change lies that a retry made of it.
    ADD applied_next_offset bigint,
    ADD applied_sequence    bigint,
    -- Bytes are kept for a time; after it the log has to have them.
    ADD erased_at           timestamptz,
    -- When it was written to the dead letter topic.
    ADD published_at        timestamptz;
CREATE INDEX dead_letters_listed ON sightline.dead_letters (domain, version, id);
CREATE INDEX dead_letters_failing ON sightline.dead_letters (domain, version, log_id, record_offset)
    WHERE state IN ('parked', 'retrying') AND class <> 'parked';
CREATE INDEX dead_letters_unpublished ON sightline.dead_letters (domain, version, id) WHERE published_at IS NULL;
CREATE INDEX dead_letters_with_bytes ON sightline.dead_letters (first_failed_at) WHERE erased_at IS NULL;

-- Records that an operator took out, by their coordinates: in every version of the view.
CREATE TABLE sightline.discards (
    domain        text        NOT NULL,
    log_id        integer     NOT NULL REFERENCES sightline.logs,
    record_offset bigint      NOT NULL,
    resolution    text        NOT NULL,  -- the operator's words
    reason        text        NOT NULL,  -- the letter's
    field         text,
    class         text        NOT NULL,
    discarded_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (domain, log_id, record_offset)
);

-- Which version followed which.
CREATE TABLE sightline.switches (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    domain       text        NOT NULL,
    from_version integer     NOT NULL,
    to_version   integer     NOT NULL,
    switched_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX switches_from ON sightline.switches (domain, from_version, id);

-- Places of a log from `from` on and before `until` (null: without end) up to which the two versions of a switch have
-- not told the same changes.
CREATE TABLE sightline.moved_changes (
    switch_id         bigint  NOT NULL REFERENCES sightline.switches,
    log_id            integer NOT NULL REFERENCES sightline.logs,
    from_next_offset  bigint  NOT NULL,
    from_sequence     bigint  NOT NULL,
    until_next_offset bigint,
    until_sequence    bigint
);
CREATE INDEX moved_changes_by_place ON sightline.moved_changes (switch_id, log_id, from_next_offset);

-- Whether somebody who has read a feed of one version of a view (p_version) up to some places would miss changes, or
-- read them again, if he read on from there in another one (p_shown): he has to begin anew. What was switched to in
-- between counts; so does a version that was never left, as nobody knows what its places meant.
CREATE FUNCTION sightline.must_resync(p_domain text, p_version integer, p_shown integer,
                                      p_logs integer[], p_next_offsets bigint[], p_sequences bigint[])
RETURNS boolean STABLE LANGUAGE sql AS $$
    SELECT p_version <> p_shown AND cardinality(p_logs) > 0 AND coalesce((
        SELECT bool_or(EXISTS (
            SELECT FROM unnest(p_logs, p_next_offsets, p_sequences) AS c (log_id, next_offset, sequence)
            JOIN sightline.moved_changes m USING (log_id)
            WHERE m.switch_id = s.id
              AND (c.next_offset, c.sequence) >= (m.from_next_offset, m.from_sequence)
              AND (m.until_next_offset IS NULL
                   OR (c.next_offset, c.sequence) < (m.until_next_offset, m.until_sequence))))
        FROM sightline.switches s
        WHERE s.domain = p_domain
          AND s.id >= (SELECT max(id) FROM sightline.switches WHERE domain = p_domain AND from_version = p_version)
    ), true)
$$;
