//! What a customer's row costs, as one document or as normalised tables: to fold a batch of events onto it, and
//! to read it; with one, three and twenty addresses.
//!
//! The normalised tables are given their best case: the fold reads and writes the one address that its event
//! names, and no other.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Row};
use uuid::Uuid;

use crate::Bench;
use crate::backlog::wal_position;
use crate::report::Report;

/// Customers whom one batch changes, by one address each.
const BATCH: i64 = 800;
const BATCHES: i64 = 12;
const READS: usize = 1_000;

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Customer {
    user_id: String,
    email: String,
    email_verified: bool,
    username: String,
    first_name: String,
    last_name: String,
    phone_number: String,
    status: String,
    registered_at: String,
    updated_at: String,
    default_shipping_address_id: Option<String>,
    addresses: Vec<Address>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Address {
    address_id: String,
    #[serde(rename = "type")]
    address_type: String,
    street_line1: String,
    city: String,
    postal_code: String,
    country: String,
    contact_name: String,
    is_default_shipping: bool,
    is_default_billing: bool,
    updated_at: String,
}

enum Shape {
    /// One row with a document; the type of its column.
    Document {
        column: &'static str,
    },
    Normalised,
}

const SHAPES: &[(&str, Shape)] = &[
    (
        "one row, a document as text (the product's)",
        Shape::Document { column: "text" },
    ),
    (
        "one row, a document as jsonb",
        Shape::Document { column: "jsonb" },
    ),
    ("two tables", Shape::Normalised),
];

const FIELDS: &str = "jsonb_build_object('userId', i::text, 'email', 'user' || i || '@example.org', 'emailVerified', true,
    'username', 'user' || i, 'firstName', 'Ada', 'lastName', 'Lovelace', 'phoneNumber', '+49301234567', 'status', 'active',
    'registeredAt', '2026-10-01T12:00:00Z', 'updatedAt', '2026-10-01T12:00:00Z', 'defaultShippingAddressId', 'addr-1')";
const ADDRESS: &str = "jsonb_build_object('addressId', 'addr-' || a, 'type', 'home', 'streetLine1', 'Invalidenstraße ' || a,
    'city', 'Berlin', 'postalCode', '10115', 'country', 'DE', 'contactName', 'Ada Lovelace ' || md5((i * a)::text),
    'isDefaultShipping', a = 1, 'isDefaultBilling', a = 1, 'updatedAt', '2026-10-01T12:00:00Z')";

pub async fn run(bench: &Bench, report: &mut Report) {
    for addresses in [1, 3, 20] {
        let customers = (bench.settings.customers / addresses).max(BATCH * 5);
        let mut tables = Vec::new();
        for (name, shape) in SHAPES
            .iter()
            .filter(|(name, _)| name.contains(&bench.settings.only))
        {
            let pool = PgPool::connect(&bench.database().await)
                .await
                .expect("Postgres answers");
            shape.fill(&pool, customers, addresses).await;
            tables.push((format!("{addresses} addresses: {name}"), shape, pool));
        }
        // The first round writes to freshly filled pages; the later rounds show the lasting cost.
        for round in 0..bench.settings.rounds {
            for (row, shape, pool) in &tables {
                sqlx::query("CHECKPOINT")
                    .execute(pool)
                    .await
                    .expect("a checkpoint");
                let wal = wal_position(pool).await;
                let mut connection = pool.acquire().await.expect("a connection");
                let mut seconds = 0.0;
                for batch in 0..BATCHES {
                    let keys = keys(&mut connection, customers).await;
                    let began = Instant::now();
                    shape
                        .change(&mut connection, &keys, batch)
                        .await
                        .expect("a batch goes through");
                    seconds += began.elapsed().as_secs_f64();
                }
                let changed = (BATCH * BATCHES) as f64;
                report.add(
                    row,
                    "µs/customer to load, fold and store",
                    seconds * 1e6 / changed,
                );
                let written = (wal_position(pool).await - wal) as f64;
                report.add(row, "WAL bytes/customer", written / changed);
                let keys = keys(&mut connection, customers).await;
                let began = Instant::now();
                for key in keys.iter().cycle().take(READS) {
                    let customer = shape.read(&mut connection, *key).await.expect("a customer");
                    assert_eq!(customer.addresses.len() as i64, addresses);
                }
                report.add(
                    row,
                    "µs to read one",
                    began.elapsed().as_secs_f64() * 1e6 / READS as f64,
                );
                drop(connection);
                if round + 1 == bench.settings.rounds {
                    table(row, pool, customers, report).await;
                }
            }
        }
    }
}

/// Some customers, each once.
async fn keys(connection: &mut PgConnection, customers: i64) -> Vec<Uuid> {
    sqlx::query_scalar("SELECT DISTINCT md5((random() * ($1 - 1) + 1)::bigint::text)::uuid FROM generate_series(1, $2)")
        .bind(customers)
        .bind(BATCH)
        .fetch_all(connection)
        .await
        .expect("keys")
}

/// Size, and how many of the updates left the index alone.
async fn table(row: &str, pool: &PgPool, customers: i64, report: &mut Report) {
    // A backend reports its counts when it becomes idle, at most a second later.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let (bytes, hot): (i64, f64) = sqlx::query_as(
        "SELECT sum(pg_total_relation_size(relid))::bigint, (sum(n_tup_hot_upd) / greatest(sum(n_tup_upd), 1))::float8
         FROM pg_stat_user_tables",
    )
    .fetch_one(pool)
    .await
    .expect("statistics");
    report.add(
        row,
        "bytes/customer in the end",
        bytes as f64 / customers as f64,
    );
    report.add(row, "% of updates HOT", 100.0 * hot);
}

impl Shape {
    async fn fill(&self, pool: &PgPool, customers: i64, addresses: i64) {
        let sql = match self {
            Shape::Document { column } => format!(
                "CREATE TABLE customers (user_key uuid PRIMARY KEY, user_id text NOT NULL, log_id integer,
                     logs integer NOT NULL, revision bigint NOT NULL, state {column} NOT NULL) WITH (fillfactor = 90);
                 INSERT INTO customers SELECT md5(i::text)::uuid, i, 1, 6, 1, ({FIELDS} || jsonb_build_object('addresses',
                     (SELECT jsonb_agg({ADDRESS}) FROM generate_series(1, {addresses}) a)))::{column}
                 FROM generate_series(1, {customers}) i"
            ),
            Shape::Normalised => format!(
                "CREATE TABLE customers (user_key uuid PRIMARY KEY, user_id text NOT NULL, log_id integer, logs integer NOT NULL,
                     email text, email_verified boolean, username text, first_name text, last_name text, phone_number text,
                     status text, registered_at text, updated_at text, default_shipping_address_id text);
                 CREATE TABLE addresses (user_key uuid, address_id text, type text, street_line1 text, city text,
                     postal_code text, country text, contact_name text, is_default_shipping boolean,
                     is_default_billing boolean, updated_at text, PRIMARY KEY (user_key, address_id));
                 INSERT INTO customers SELECT md5(i::text)::uuid, i, 1, 6, f->>'email', true, f->>'username', f->>'firstName',
                     f->>'lastName', f->>'phoneNumber', f->>'status', f->>'registeredAt', f->>'updatedAt', 'addr-1'
                 FROM generate_series(1, {customers}) i, LATERAL (SELECT {FIELDS} f) f;
                 INSERT INTO addresses SELECT md5(i::text)::uuid, f->>'addressId', f->>'type', f->>'streetLine1', f->>'city',
                     f->>'postalCode', f->>'country', f->>'contactName', a = 1, a = 1, f->>'updatedAt'
                 FROM generate_series(1, {customers}) i, generate_series(1, {addresses}) a, LATERAL (SELECT {ADDRESS} f) f"
            ),
        };
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(pool)
            .await
            .expect("filled");
        sqlx::raw_sql("VACUUM ANALYZE")
            .execute(pool)
            .await
            .expect("analysed");
    }

    /// Folds onto each customer an event that changes a street and the time, in one transaction.
    async fn change(
        &self,
        connection: &mut PgConnection,
        keys: &[Uuid],
        batch: i64,
    ) -> Result<(), sqlx::Error> {
        let (street, at) = (
            format!("Kantstraße {batch}"),
            "2026-11-23T12:00:00Z".to_owned(),
        );
        let mut transaction = connection.begin().await?;
        match self {
            Shape::Document { column } => {
                let rows = sqlx::query("SELECT user_key, user_id, log_id, revision, state::text FROM customers WHERE user_key = ANY ($1)")
                    .bind(keys)
                    .fetch_all(&mut *transaction)
                    .await?;
                let mut rows: Vec<(Uuid, String, i64, Customer)> = rows
                    .iter()
                    .map(|row| (row.get(0), row.get(1), row.get(3), parse(row.get(4))))
                    .collect();
                rows.sort_by_key(|row| row.0);
                for (.., customer) in &mut rows {
                    customer.addresses[0].street_line1.clone_from(&street);
                    customer.addresses[0].updated_at.clone_from(&at);
                    customer.updated_at.clone_from(&at);
                }
                let keys: Vec<_> = rows.iter().map(|row| row.0).collect();
                let ids: Vec<_> = rows.iter().map(|row| &row.1).collect();
                let revisions: Vec<_> = rows.iter().map(|row| row.2 + 1).collect();
                let states: Vec<_> = rows.iter().map(|row| print(&row.3)).collect();
                let store = format!(
                    "INSERT INTO customers AS c (user_key, user_id, log_id, logs, revision, state)
                     SELECT user_key, user_id, 1, 6, revision, state::{column}
                     FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[]) AS n (user_key, user_id, revision, state)
                     ORDER BY user_key
                     ON CONFLICT (user_key) DO UPDATE
                     SET log_id = EXCLUDED.log_id, logs = EXCLUDED.logs, revision = EXCLUDED.revision, state = EXCLUDED.state
                     WHERE c.revision = EXCLUDED.revision - 1
                     RETURNING user_key"
                );
                sqlx::query(AssertSqlSafe(store))
                    .bind(keys)
                    .bind(ids)
                    .bind(revisions)
                    .bind(states)
                    .fetch_all(&mut *transaction)
                    .await?;
            }
            Shape::Normalised => {
                let customers = sqlx::query("SELECT * FROM customers WHERE user_key = ANY ($1) ORDER BY user_key FOR UPDATE")
                    .bind(keys)
                    .fetch_all(&mut *transaction)
                    .await?;
                let addresses = sqlx::query("SELECT * FROM addresses WHERE user_key = ANY ($1) AND address_id = 'addr-1' ORDER BY user_key")
                    .bind(keys)
                    .fetch_all(&mut *transaction)
                    .await?;
                let texts = |rows: &[sqlx::postgres::PgRow], column: &str| -> Vec<String> {
                    rows.iter().map(|row| row.get(column)).collect()
                };
                let flags = |rows: &[sqlx::postgres::PgRow], column: &str| -> Vec<bool> {
                    rows.iter().map(|row| row.get(column)).collect()
                };
                let keys = |rows: &[sqlx::postgres::PgRow]| -> Vec<Uuid> {
                    rows.iter().map(|row| row.get(0)).collect()
                };
                let c = |column: &str| texts(&customers, column);
                sqlx::query(
                    "INSERT INTO customers
                     SELECT user_key, user_id, 1, 6, email, email_verified, username, first_name, last_name, phone_number, status,
                         registered_at, $12, default_shipping_address_id
                     FROM unnest($1::uuid[], $2::text[], $3::text[], $4::boolean[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
                         $10::text[], $11::text[]) AS n (user_key, user_id, email, email_verified, username, first_name, last_name, phone_number,
                         status, registered_at, default_shipping_address_id)
                     ON CONFLICT (user_key) DO UPDATE SET log_id = EXCLUDED.log_id, logs = EXCLUDED.logs, email = EXCLUDED.email,
                         email_verified = EXCLUDED.email_verified, username = EXCLUDED.username, first_name = EXCLUDED.first_name,
                         last_name = EXCLUDED.last_name, phone_number = EXCLUDED.phone_number, status = EXCLUDED.status,
                         registered_at = EXCLUDED.registered_at, updated_at = EXCLUDED.updated_at,
                         default_shipping_address_id = EXCLUDED.default_shipping_address_id",
                )
                .bind(keys(&customers))
                .bind(c("user_id"))
                .bind(c("email"))
                .bind(flags(&customers, "email_verified"))
                .bind(c("username"))
                .bind(c("first_name"))
                .bind(c("last_name"))
                .bind(c("phone_number"))
                .bind(c("status"))
                .bind(c("registered_at"))
                .bind(c("default_shipping_address_id"))
                .bind(&at)
                .execute(&mut *transaction)
                .await?;
                let a = |column: &str| texts(&addresses, column);
                sqlx::query(
                    "INSERT INTO addresses
                     SELECT user_key, address_id, type, $10, city, postal_code, country, contact_name, is_default_shipping, is_default_billing, $11
                     FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::boolean[],
                         $9::boolean[]) AS n (user_key, address_id, type, city, postal_code, country, contact_name, is_default_shipping,
                         is_default_billing)
                     ON CONFLICT (user_key, address_id) DO UPDATE SET type = EXCLUDED.type, street_line1 = EXCLUDED.street_line1,
                         city = EXCLUDED.city, postal_code = EXCLUDED.postal_code, country = EXCLUDED.country,
                         contact_name = EXCLUDED.contact_name, is_default_shipping = EXCLUDED.is_default_shipping,
                         is_default_billing = EXCLUDED.is_default_billing, updated_at = EXCLUDED.updated_at",
                )
                .bind(keys(&addresses))
                .bind(a("address_id"))
                .bind(a("type"))
                .bind(a("city"))
                .bind(a("postal_code"))
                .bind(a("country"))
                .bind(a("contact_name"))
                .bind(flags(&addresses, "is_default_shipping"))
                .bind(flags(&addresses, "is_default_billing"))
                .bind(&street)
                .bind(&at)
                .execute(&mut *transaction)
                .await?;
            }
        }
        transaction.commit().await
    }

    async fn read(
        &self,
        connection: &mut PgConnection,
        key: Uuid,
    ) -> Result<Customer, sqlx::Error> {
        let sql = match self {
            Shape::Document { .. } => "SELECT state::text FROM customers WHERE user_key = $1",
            // Both tables in one statement: an answer is of one snapshot.
            Shape::Normalised => {
                "SELECT c.*, a.* FROM customers c LEFT JOIN addresses a USING (user_key) WHERE c.user_key = $1 ORDER BY a.address_id"
            }
        };
        let rows = sqlx::query(sql).bind(key).fetch_all(connection).await?;
        Ok(match self {
            Shape::Document { .. } => parse(rows[0].get(0)),
            Shape::Normalised => Customer {
                user_id: rows[0].get("user_id"),
                email: rows[0].get("email"),
                email_verified: rows[0].get("email_verified"),
                username: rows[0].get("username"),
                first_name: rows[0].get("first_name"),
                last_name: rows[0].get("last_name"),
                phone_number: rows[0].get("phone_number"),
                status: rows[0].get("status"),
                registered_at: rows[0].get("registered_at"),
                updated_at: rows[0].get(12),
                default_shipping_address_id: rows[0].get("default_shipping_address_id"),
                addresses: rows
                    .iter()
                    .map(|row| Address {
                        address_id: row.get("address_id"),
                        address_type: row.get("type"),
                        street_line1: row.get("street_line1"),
                        city: row.get("city"),
                        postal_code: row.get("postal_code"),
                        country: row.get("country"),
                        contact_name: row.get("contact_name"),
                        is_default_shipping: row.get("is_default_shipping"),
                        is_default_billing: row.get("is_default_billing"),
                        updated_at: row.get("updated_at"),
                    })
                    .collect(),
            },
        })
    }
}

fn parse(document: &str) -> Customer {
    serde_json::from_str(document).expect("a customer")
}

fn print(customer: &Customer) -> String {
    serde_json::to_string(customer).expect("JSON")
}
