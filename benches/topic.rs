//! A topic of its own, and the gateway that projects it.

use std::time::{Duration, Instant};

use sightline::domains::Domain;
use sightline::domains::fulfillment::Fulfillment;
use sightline::domains::order::Order;
use sightline_testing::app::{App, Running};
use sightline_testing::broker::Broker;
use sightline_testing::unique;
use sqlx::PgPool;

use crate::{Bench, Build, log};

/// The pause between two looks at the progress rows.
const POLL: Duration = Duration::from_millis(20);

/// Some of the domains.
pub type Domains = &'static [&'static dyn Domain];

pub const ORDER: Domains = &[&Order];
/// What is read.
pub const READ: Domains = &[&Order, &Fulfillment];

/// The names of domains, separated.
pub fn names(domains: Domains, separator: &str) -> String {
    let names: Vec<&str> = domains.iter().map(|domain| domain.domain()).collect();
    names.join(separator)
}

/// A topic that only this benchmark uses.
pub struct Topic {
    pub broker: Broker,
    pub name: String,
    pub partitions: i32,
    /// Users in it.
    pub users: Vec<String>,
    /// How many events it has.
    pub events: i64,
}

impl Topic {
    pub async fn create(bench: &Bench) -> Topic {
        let (broker, name) = (bench.broker(), unique("user.events"));
        let partitions = bench.settings.partitions;
        broker.create_topic(&name, partitions).await;
        Topic {
            broker,
            name,
            partitions,
            users: Vec::new(),
            events: 0,
        }
    }

    /// A topic with a generated log.
    pub async fn fill(bench: &Bench) -> Topic {
        let topic = Topic::create(bench).await;
        let records = log::generate(bench.settings.events, topic.partitions);
        let writer = topic.broker.writer();
        for some in records.chunks(100_000) {
            writer.write(&topic.name, some).await;
        }
        Topic {
            users: log::users(&records),
            events: records.len() as i64,
            ..topic
        }
    }

    /// Starts `sightline serve` on a migrated database; its ports may not be open yet.
    pub fn serve(&self, build: &Build, domains: Domains, database: &str) -> App {
        self.serve_as("all", build, domains, database)
    }

    /// The same in one of the roles.
    pub fn serve_as(&self, role: &str, build: &Build, domains: Domains, database: &str) -> App {
        let mut command = build.command(&["serve"]);
        command.envs([
            ("SIGHTLINE_ROLE", role),
            ("SIGHTLINE_DATABASE_URL", database),
            ("SIGHTLINE_KAFKA_BROKERS", &self.broker.address),
            ("SIGHTLINE_KAFKA_TOPICS", &self.name),
            ("SIGHTLINE_KAFKA_GROUP_PREFIX", &unique("group")),
            ("SIGHTLINE_DOMAINS", &names(domains, ",")),
        ]);
        App::start(&command)
    }

    /// Starts it and waits until everything is projected.
    pub async fn project(&self, bench: &Bench, domains: Domains) -> Running {
        let build = Build::this();
        let (database, pool) = bench.migrated(&build).await;
        let app = self.serve(&build, domains, &database);
        self.projected(domains, &pool, Instant::now()).await;
        app.ready().await
    }

    /// Waits until the first records are projected. Returns how many they were, of all domains.
    pub async fn begun(&self, pool: &PgPool) -> i64 {
        loop {
            match positions(pool).await {
                0 => tokio::time::sleep(POLL).await,
                done => return done,
            }
        }
    }

    /// Waits until everything is projected into the domains.
    pub async fn projected(&self, domains: Domains, pool: &PgPool, since: Instant) -> Projected {
        let events = |positions| positions as f64 / domains.len() as f64;
        let all = self.events * domains.len() as i64;
        let before = self.begun(pool).await;
        let began = Instant::now();
        let mut seen = vec![(began, before)];
        let mut done = before;
        while done < all {
            tokio::time::sleep(POLL).await;
            done = positions(pool).await;
            seen.push((Instant::now(), done));
        }
        // The rate from the first look that found this share done until the one that found another.
        let rate = |from: f64, to: f64| {
            let [from, to] = [from, to].map(|share| {
                let share = before as f64 + (all - before) as f64 * share;
                seen.iter().find(|(_, done)| *done as f64 >= share)
            });
            let ((from, before), (to, after)) = (from.expect("a look"), to.expect("a look"));
            events(after - before) / (*to - *from).as_secs_f64()
        };
        Projected {
            took: since.elapsed(),
            rate: rate(0.0, 1.0),
            first_tenth: rate(0.0, 0.1),
            last_tenth: rate(0.9, 1.0),
        }
    }
}

/// How fast a topic was projected. Rates are of the topic's events in a second, from the first commit on.
pub struct Projected {
    /// From a moment before.
    pub took: Duration,
    pub rate: f64,
    pub first_tenth: f64,
    pub last_tenth: f64,
}

/// The sum of all positions.
async fn positions(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT coalesce(sum(next_offset), 0)::bigint FROM sightline.progress")
        .fetch_one(pool)
        .await
        .expect("progress")
}
