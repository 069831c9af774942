-- The names of the field for what had names of its own. Nothing changes but names.

-- Kafka Streams' word for the largest timestamp so far: stream time. This one moves by a day per record at most.
ALTER TABLE sightline.progress RENAME log_time TO stream_time;
ALTER TABLE sightline.dead_letters RENAME log_time TO stream_time;
SELECT sightline.in_every_version(domain, 'ALTER TABLE seen_events RENAME log_time TO applied_time')
FROM (SELECT DISTINCT domain FROM sightline.views) AS domains;

-- What a partition that was added waits for: the offsets that the older ones have to reach first.
ALTER TABLE sightline.progress RENAME held_until TO waits_for;

-- Kafka's log start offset and log end offset.
ALTER TABLE sightline.log_ends RENAME TO log_offsets;
ALTER TABLE sightline.log_offsets RENAME start_offset TO log_start_offset;
ALTER TABLE sightline.log_offsets RENAME end_offset TO log_end_offset;

-- A dead letter that waits behind another one of its key is blocked; `parked` is the state of all that are set aside.
ALTER TABLE sightline.dead_letters DROP CONSTRAINT dead_letters_class_check;
DROP INDEX sightline.dead_letters_failing;
UPDATE sightline.dead_letters SET class = 'blocked' WHERE class = 'parked';
UPDATE sightline.dead_letters SET reason = 'blocked' WHERE reason = 'parked_behind';
UPDATE sightline.discards SET class = 'blocked' WHERE class = 'parked';
UPDATE sightline.discards SET reason = 'blocked' WHERE reason = 'parked_behind';
ALTER TABLE sightline.dead_letters
    ADD CONSTRAINT dead_letters_class_check CHECK (class IN ('data', 'schema', 'bug', 'blocked'));
CREATE INDEX dead_letters_failing ON sightline.dead_letters (domain, version, log_id, record_offset)
    WHERE state IN ('parked', 'retrying') AND class <> 'blocked';

ALTER INDEX sightline.moved_changes_by_place RENAME TO moved_changes_by_feed_position;

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
        applied_time  timestamptz,
        PRIMARY KEY (event_hash, log_id))', p_schema);
    EXECUTE format('CREATE INDEX seen_events_by_time ON %I.seen_events (log_id, applied_time)', p_schema);
END $$;

CREATE OR REPLACE FUNCTION sightline.logs_before(p_domain text, p_version integer, p_log_id integer)
RETURNS SETOF integer LANGUAGE sql STABLE AS $$
    SELECT former.log_id
    FROM sightline.progress AS p
    JOIN sightline.logs AS l ON l.log_id = p.log_id
    JOIN sightline.logs AS f ON f.topic = l.topic AND f.log_id <> l.log_id
    JOIN sightline.progress AS former ON (former.domain, former.version, former.log_id) = (p.domain, p.version, f.log_id)
    WHERE p.domain = p_domain AND p.version = p_version AND p.log_id = p_log_id
      AND (former.ended_at IS NOT NULL AND (p.ended_at IS NULL OR former.ended_at < p.ended_at)
           OR p.waits_for ? f.partition::text AND f.topic_identity = l.topic_identity)
$$;
