//! What former releases have stored stays: a migration converts it.

use serde_json::json;
use sightline_testing::app::World;
use sightline_testing::check::{Depth, Ends, assert_answers, assert_books, caught_up, folded};
use sightline_testing::hostile_log::{Shape, generate, seed};
use sightline_testing::operations::{built, project};
use sqlx::{Connection, PgConnection};

const SHAPE: Shape = Shape {
    records: 3_000,
    partitions: 2,
    users: 60,
};

/// Brings the database back to what migration 0020 found: two domains, documents as jsonb, and a row for
/// each remembered event id.
const AS_BEFORE_0020: &str = r#"
DELETE FROM sightline._sqlx_migrations WHERE version >= 20;
SELECT sightline.in_every_version('order', $$DROP INDEX address_changes_significant$$);
DO $$
DECLARE
    later text;
BEGIN
    FOR later IN DELETE FROM sightline.views WHERE domain NOT IN ('order', 'fulfillment') RETURNING schema_name LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', later);
    END LOOP;
END $$;
DROP SCHEMA notification, audit CASCADE;
DROP INDEX sightline.dead_letters_by_event;
DROP FUNCTION sightline.create_id_tables();
SELECT sightline.in_every_version(domain, $$
    ALTER TABLE users ALTER state TYPE jsonb USING state::jsonb;
    ALTER TABLE user_history ALTER fact TYPE jsonb USING fact::jsonb;
    CREATE TABLE seen_events (
        event_hash    uuid        NOT NULL,
        log_id        integer     NOT NULL,
        record_offset bigint      NOT NULL,
        applied_time  timestamptz,
        PRIMARY KEY (event_hash, log_id));
    INSERT INTO seen_events
    SELECT (encode(substring(entry FOR 12), 'hex') || 'ffffffff')::uuid, log_id,
           ('x' || encode(substring(entry FROM 13 FOR 6), 'hex'))::bit(48)::bigint,
           to_timestamp(('x' || encode(substring(entry FROM 19), 'hex'))::bit(56)::bigint / 1000.0)
    FROM (SELECT log_id, ids FROM event_id_runs WHERE ids IS NOT NULL UNION ALL SELECT log_id, ids FROM event_id_blocks) AS b,
         generate_series(0, length(ids) / 25 - 1) AS n, substring(ids FROM n * 25 + 1 FOR 25) AS entry;
    CREATE INDEX seen_events_by_time ON seen_events (log_id, applied_time);
    DROP TABLE event_id_runs, event_id_blocks;
$$) FROM (VALUES ('order'), ('fulfillment')) AS domains (domain);
SELECT sightline.in_every_version('order', $$
    ALTER TABLE address_changes
        ADD kind text, ADD address_id text, ADD affects_shipping boolean, ADD affects_billing boolean,
        ADD before jsonb, ADD after jsonb, ADD event_id text;
    UPDATE address_changes
    SET kind = change::jsonb ->> 'kind', address_id = change::jsonb ->> 'addressId', event_id = change::jsonb ->> 'eventId',
        affects_shipping = coalesce((change::jsonb ->> 'affectsDefaultShipping')::boolean, false),
        affects_billing = coalesce((change::jsonb ->> 'affectsDefaultBilling')::boolean, false),
        before = change::jsonb -> 'before', after = change::jsonb -> 'after';
    ALTER TABLE address_changes DROP change;
$$);
SELECT sightline.in_every_version('order', $$
    -- The answer was made when it was read, from the customer without addresses, and the book of these.
    UPDATE users
    SET state = jsonb_strip_nulls(jsonb_build_object(
        'customer', state -> 'answer' || '{"addresses": [], "defaultShippingAddressId": null, "defaultBillingAddressId": null}',
        'book', jsonb_build_object(
            'addresses', (
                SELECT coalesce(jsonb_object_agg(a ->> 'addressId', jsonb_build_object(
                    'type', a -> 'type', 'stale', a -> 'staleFields',
                    'parts', a - '{addressId,type,isDefaultShipping,isDefaultBilling,staleFields,updatedAt}'::text[],
                    'updated', jsonb_build_object('at', coalesce(a ->> 'updatedAt', state #>> '{answer,deletedAt}'),
                                                  'log', 1, 'offset', 0))), '{}')
                FROM jsonb_array_elements(state #> '{answer,addresses}') AS a),
            'gone', state -> 'gone',
            'defaultShipping', state #> '{answer,defaultShippingAddressId}',
            'defaultBilling', state #> '{answer,defaultBillingAddressId}'),
        'lastInUse', state -> 'lastInUse', 'isErased', state -> 'isErased'));
$$);
SELECT sightline.in_every_version('fulfillment', $$ALTER TABLE shipping_addresses ALTER address TYPE jsonb USING address::jsonb$$);
DROP DOMAIN sightline.document;
DROP FUNCTION sightline.magnitude(bigint);
"#;

/// Brings the database back to what migrations 0027 and 0028 found: words once per log, and the times of the funnel by day.
const AS_BEFORE_0027: &str = r"
DELETE FROM sightline._sqlx_migrations WHERE version >= 27;
SELECT sightline.in_every_version('order', $$DROP INDEX address_changes_significant$$);
SELECT sightline.in_every_version('search', $$
    DROP TABLE search_words;
    ALTER TABLE search_word_counts RENAME TO search_words;
    ALTER INDEX search_word_counts_pkey RENAME TO search_words_pkey;
    ALTER TABLE search_words
        ADD length integer NOT NULL GENERATED ALWAYS AS (char_length(word)) STORED,
        ADD backwards text NOT NULL GENERATED ALWAYS AS (reverse(word)) STORED,
        ADD middle text NOT NULL GENERATED ALWAYS AS (substr(word, 3)) STORED;
    CREATE INDEX search_words_by_beginning ON search_words (length, word);
    CREATE INDEX search_words_by_ending ON search_words (length, backwards);
    CREATE INDEX search_words_by_middle ON search_words (length, middle, word);
$$);
DROP FUNCTION sightline.magnitude(bigint);
SELECT sightline.in_every_version('analytics', $$
    ALTER TABLE funnel_times
        DROP CONSTRAINT funnel_times_pkey,
        DROP registered_in,
        ADD PRIMARY KEY (step, bucket, registered_on, micros, user_key);
$$);
";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_former_release_has_stored_is_converted() {
    convert(&["order", "fulfillment"], AS_BEFORE_0020).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn words_by_log_and_times_by_day_are_found_and_counted_on() {
    convert(&["search", "analytics"], AS_BEFORE_0027).await;
}

/// The program projects part of a log, and `as_before` brings its database back to what a former release has left. Then the
/// program starts again, converts that by its migrations, and projects the rest: its view must equal one that it builds anew.
async fn convert(domains: &[&str], as_before: &'static str) {
    let log = generate(seed() + 6, SHAPE);
    // The later records repeat events of the earlier ones.
    let (some, more) = log.split_at(SHAPE.records * 2 / 3);
    let (fold, ends) = folded(some, SHAPE.partitions);
    let mut world = World::shared(SHAPE.partitions).await;
    world.set("SIGHTLINE_DOMAINS", &domains.join(","));
    let writer = world.broker.writer();
    writer.write(&world.topic, some).await;
    let mut running = world.serve().await;
    caught_up(&running.rest, &ends).await;
    running.app.process.kill();
    let mut connection = PgConnection::connect(&world.database.url)
        .await
        .expect("it answers");
    sqlx::raw_sql(as_before)
        .execute(&mut connection)
        .await
        .expect("a former database");

    let running = world.serve().await;
    let rest = &running.rest;
    assert_books(&caught_up(rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Thorough).await;
    writer.write(&world.topic, more).await;
    let (fold, ends) = folded(&log, SHAPE.partitions);
    assert_books(&caught_up(rest, &ends).await, &fold, &Ends::new());
    assert_answers(&running, &fold, Depth::Thorough).await;
    for domain in domains {
        project(rest, domain, "rebuild", json!({})).await;
        built(rest, domain, ends.values().sum()).await;
        // Users without an event since have their customers as a former release has written them.
        let compare = *domain != "order";
        project(rest, domain, "switch", json!({"compare": compare})).await;
    }
    assert_answers(&running, &fold, Depth::Thorough).await;
}
