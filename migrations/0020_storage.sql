-- A document: JSON that Postgres takes for text, and neither parses nor prints, as it does jsonb. Only this program reads it, and
-- storing one costs a third of what it did (docs/performance.md). `state::jsonb` shows one to an operator.
CREATE DOMAIN sightline.document AS text;

-- A time as this program writes it: with no, three or six digits after the second.
CREATE FUNCTION sightline.document_time(at timestamptz) RETURNS text LANGUAGE sql AS $$
    SELECT regexp_replace(regexp_replace(to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '\.000000Z$', 'Z'), '000Z$', 'Z')
$$;

SELECT sightline.in_every_version('order', $$
    ALTER TABLE users ALTER state TYPE sightline.document USING state::text;
    ALTER TABLE user_history ALTER fact TYPE sightline.document USING fact::text;

    -- The document of a change is the answer, without its cursor.
    ALTER TABLE address_changes ADD change sightline.document;
    UPDATE address_changes
    SET change = jsonb_strip_nulls(jsonb_build_object(
            'userId', user_id, 'addressId', address_id, 'kind', kind, 'deletionType', deletion_type,
            'before', before, 'after', after, 'occurredAt', sightline.document_time(occurred_at), 'eventId', event_id)
        || CASE WHEN deletion_type IS NULL
                THEN jsonb_build_object('affectsDefaultShipping', affects_shipping, 'affectsDefaultBilling', affects_billing,
                                        'significant', significant)
                ELSE '{}' END)::text;
    ALTER TABLE address_changes
        ALTER change SET NOT NULL,
        DROP kind, DROP address_id, DROP affects_shipping, DROP affects_billing, DROP before, DROP after, DROP event_id;
$$);

SELECT sightline.in_every_version('fulfillment', $$
    ALTER TABLE users ALTER state TYPE sightline.document USING state::text;
    ALTER TABLE user_history ALTER fact TYPE sightline.document USING fact::text;
    ALTER TABLE shipping_addresses ALTER address TYPE sightline.document USING address::text;
$$);

DROP FUNCTION sightline.document_time(timestamptz);

-- Remembered event ids are runs: the ids that one transaction applied, sorted by their hashes, in blocks (src/projector/ids/mod.rs).
CREATE FUNCTION sightline.create_id_tables()
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CREATE TABLE event_id_runs (
        log_id      integer     NOT NULL,
        run         bigint      NOT NULL,  -- a random number
        ids_count   integer     NOT NULL,
        last_offset bigint      NOT NULL,  -- the largest offset and time of its ids: the run expires when they do
        last_time   timestamptz NOT NULL,
        filter      bytea       NOT NULL,  -- a Bloom filter of its ids; an empty one holds every id
        ids         bytea,                 -- the block, if it is the only one
        PRIMARY KEY (log_id, run)
    ) WITH (toast_tuple_target = 4080);
    CREATE TABLE event_id_blocks (
        log_id     integer NOT NULL,
        run        bigint  NOT NULL,
        first_hash uuid    NOT NULL,
        ids        bytea   NOT NULL,
        PRIMARY KEY (log_id, run, first_hash)
    );
    -- Hashes can't be compressed.
    ALTER TABLE event_id_runs ALTER filter SET STORAGE EXTERNAL, ALTER ids SET STORAGE EXTERNAL;
    ALTER TABLE event_id_blocks ALTER ids SET STORAGE EXTERNAL;
END $$;

CREATE OR REPLACE FUNCTION sightline.create_view(p_domain text, p_version integer, p_schema text, p_state text, p_code_version integer)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    before text := current_setting('search_path');
BEGIN
    INSERT INTO sightline.domains (domain, last_version) VALUES (p_domain, p_version)
    ON CONFLICT (domain) DO UPDATE SET last_version = greatest(domains.last_version, EXCLUDED.last_version);
    INSERT INTO sightline.views (domain, version, schema_name, state, code_version)
    VALUES (p_domain, p_version, p_schema, p_state, p_code_version);
    EXECUTE format('CREATE SCHEMA %I', p_schema);
    EXECUTE format('CREATE TABLE %I.view_version (version integer NOT NULL, logs integer NOT NULL, ready boolean NOT NULL)', p_schema);
    EXECUTE format('INSERT INTO %I.view_version VALUES (%s, 0, false)', p_schema, p_version);
    -- Without statistics the planner takes an empty table for one of two thousand rows.
    EXECUTE format('ANALYZE %I.view_version', p_schema);
    PERFORM set_config('search_path', quote_ident(p_schema), true);
    PERFORM sightline.create_id_tables();
    PERFORM set_config('search_path', before, true);
END $$;

-- The ids of former releases become runs without a filter, which maintenance then makes.
SELECT sightline.in_every_version(domain, $$
    SELECT sightline.create_id_tables();
    WITH numbered AS (
        SELECT log_id, (row_number() OVER (PARTITION BY log_id ORDER BY record_offset) - 1) / 32767 AS chunk,
               substring(uuid_send(event_hash) FOR 12) AS hash, record_offset, coalesce(applied_time, 'epoch') AS applied_time
        FROM seen_events
    ), runs AS (
        INSERT INTO event_id_runs (log_id, run, ids_count, last_offset, last_time, filter)
        SELECT log_id, chunk + 1, count(*), max(record_offset), max(applied_time), ''
        FROM numbered
        GROUP BY log_id, chunk
    ), blocks AS (
        SELECT *, (row_number() OVER (PARTITION BY log_id, chunk ORDER BY hash) - 1) / 78 AS block
        FROM numbered
    )
    INSERT INTO event_id_blocks (log_id, run, first_hash, ids)
    SELECT log_id, chunk + 1, encode((array_agg(hash ORDER BY hash))[1] || '\x00000000', 'hex')::uuid,
           string_agg(hash || substring(int8send(record_offset) FROM 3)
                      || substring(int8send(floor(extract(epoch FROM applied_time) * 1000)::bigint) FROM 2), ''::bytea ORDER BY hash)
    FROM blocks
    GROUP BY log_id, chunk, block;
    DROP TABLE seen_events;
    ANALYZE view_version;
$$)
FROM (SELECT DISTINCT domain FROM sightline.views) AS domains;
