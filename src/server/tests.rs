//! The server with an example domain, tested without Kafka and Postgres.

mod documents;
mod grpc;
mod rest;

use std::time::Duration;

use sqlx::postgres::PgPoolOptions;
use tokio_util::sync::CancellationToken;

use super::Domains;
use crate::error::Error;
use crate::operations::Operations;
use crate::projector::announcements::Announcements;
use crate::projector::dead_letters::retry::Retrier;
use crate::projector::restores::RestoreCheck;
use crate::query::Position;
use crate::query::lag::Lag;
use crate::query::token::TopicRef;
use crate::query::{Answer, ConsistencyToken, Reads, Work};

/// Reads of a database that does not exist.
fn reads() -> Reads {
    let pool = PgPoolOptions::new()
        .acquire_timeout(Duration::from_millis(50))
        .connect_lazy("postgres://127.0.0.1:1/none")
        .unwrap();
    let work = Work {
        pool: pool.clone(),
        announcements: Announcements::default(),
        restores: RestoreCheck {
            pool: pool.clone(),
            kafka: rdkafka::ClientConfig::new(),
            group_prefix: "none".to_owned(),
        },
        stop: CancellationToken::new(),
    };
    Reads::new(vec!["order"], pool, vec![], work, None, Duration::ZERO)
}

fn lag() -> Lag {
    Lag::new(reads(), [("order", 1)], ["audit", "order"])
}

fn operations() -> Operations {
    let retrier = Retrier {
        pool: reads().pool().clone(),
        kafka: rdkafka::ClientConfig::new(),
        max_value_bytes: 1,
        dedupe: chrono::TimeDelta::days(1),
        announcements: Announcements::default(),
    };
    Operations::new(reads(), lag(), retrier, vec![], vec!["audit", "order"])
}

fn domains() -> Domains {
    Domains {
        served: vec!["order"],
        known: vec!["audit", "order"],
    }
}

fn token() -> ConsistencyToken {
    let mut token = ConsistencyToken::default();
    let topic = TopicRef {
        topic: "user.events".into(),
        identity: None,
    };
    token.advance(topic, 3, 42);
    token
}

/// What the example routes and the example service answer for an id.
async fn find(id: String) -> Result<Answer<String>, Error> {
    match id.as_str() {
        "gone" => {
            return Err(Error::not_found("thing").with_metadata(Position::from(token()).metadata()));
        }
        "panic" => panic!("for the test"),
        "slow" => std::future::pending().await,
        _ => {}
    }
    Ok(Answer {
        body: id,
        position: token().into(),
    })
}
