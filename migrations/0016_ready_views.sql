-- A view is ready once its first version has reached the ends that all its partitions had when it began. Before that, what is
-- missing from it may still come.
ALTER TABLE sightline.progress
    -- The log end offset when the view began; null for a partition that was added later, which is not waited for.
    ADD ready_offset bigint;

CREATE OR REPLACE FUNCTION sightline.create_view(p_domain text, p_version integer, p_schema text, p_state text, p_code_version integer)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO sightline.domains (domain, last_version) VALUES (p_domain, p_version)
    ON CONFLICT (domain) DO UPDATE SET last_version = greatest(domains.last_version, EXCLUDED.last_version);
    INSERT INTO sightline.views (domain, version, schema_name, state, code_version)
    VALUES (p_domain, p_version, p_schema, p_state, p_code_version);
    EXECUTE format('CREATE SCHEMA %I', p_schema);
    EXECUTE format('CREATE TABLE %I.view_version (version integer NOT NULL, logs integer NOT NULL, ready boolean NOT NULL)', p_schema);
    EXECUTE format('INSERT INTO %I.view_version VALUES (%s, 0, false)', p_schema, p_version);
    EXECUTE format('CREATE TABLE %I.seen_events (
        event_hash    uuid        NOT NULL,
        log_id        integer     NOT NULL,
        record_offset bigint      NOT NULL,
        applied_time  timestamptz,
        PRIMARY KEY (event_hash, log_id))', p_schema);
    EXECUTE format('CREATE INDEX seen_events_by_time ON %I.seen_events (log_id, applied_time)', p_schema);
END $$;

-- What the views that are there had to reach is not known. Those that have read records count as ready.
DO $$
DECLARE
    view record;
BEGIN
    FOR view IN
        SELECT v.schema_name,
               EXISTS (SELECT FROM sightline.progress AS p
                       WHERE p.domain = v.domain AND p.version = v.version AND p.read > 0) AS ready
        FROM sightline.views AS v
        WHERE v.state <> 'dropped'
    LOOP
        EXECUTE format('ALTER TABLE %I.view_version ADD ready boolean NOT NULL DEFAULT %L', view.schema_name, view.ready);
        EXECUTE format('ALTER TABLE %I.view_version ALTER ready DROP DEFAULT', view.schema_name);
    END LOOP;
END $$;

-- Reads about one user ask whether open dead letters lie under the user's id.
CREATE INDEX dead_letters_open_by_key ON sightline.dead_letters (domain, version, key_hash) WHERE state IN ('parked', 'retrying');
