//! The way of letters to the dead letter topic, `<topic>.dlq.<domain>`. The table is the outbox: a letter is marked
//! only after Kafka has acknowledged it, so that each arrives at least once, and maybe again after a crash. One that Kafka
//! refuses holds up no other.
//!
//! Headers are those that Kafka Streams gives to dead letters (KIP-1034), and some of ours. Key and value, which are
//! personal data, go along only where that is configured.

use std::collections::HashSet;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use sqlx::PgPool;
use uuid::Uuid;

use crate::db;

/// How many letters, and of how many bytes (but one at least), go out at a time.
const LETTERS: i64 = 200;
const BYTES: i64 = 16 << 20;
/// How long Kafka may take to acknowledge one.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Publishes letters.
pub struct Outbox {
    pool: PgPool,
    config: ClientConfig,
    with_values: bool,
    producer: Option<FutureProducer>,
    /// The topics that were found or made.
    topics: HashSet<String>,
    /// Whether the last attempt failed: said once, not every time.
    troubled: bool,
}

/// What a letter is published with.
struct Letter {
    id: Uuid,
    topic: String,
    partition: i32,
    record_offset: i64,
    record_key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    event_type: Option<String>,
    reason: String,
    field: Option<String>,
    class: String,
}

#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("{}", db::describe(.0))]
    Database(#[from] sqlx::Error),
    #[error("{0}")]
    Kafka(#[from] KafkaError),
}

impl Outbox {
    /// Nothing is connected to before there is a letter.
    pub fn new(pool: PgPool, kafka: &ClientConfig, with_values: bool) -> Self {
        let mut config = kafka.clone();
        // These are a consumer's.
        config.remove("isolation.level").remove("group.protocol");
        config
            .set("enable.idempotence", "true")
            // The topic's own limit counts, not the client's.
            .set("message.max.bytes", "1000000000")
            .set("message.timeout.ms", TIMEOUT.as_millis().to_string());
        Outbox {
            pool,
            config,
            with_values,
            producer: None,
            topics: HashSet::new(),
            troubled: false,
        }
    }

    /// Publishes all letters of a domain's live version that were not published yet.
    pub async fn publish(&mut self, domain: &'static str) {
        loop {
            match self.publish_some(domain).await {
                Ok(published) => {
                    if published > 0 && std::mem::take(&mut self.troubled) {
                        tracing::info!(domain, "dead letters are published again");
                    }
                    if published == 0 {
                        return;
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.troubled, true) {
                        tracing::warn!(domain, %error, "dead letters can't be published; trying until they can");
                    }
                    return;
                }
            }
        }
    }

    /// Returns how many were published, which is 0 at the end.
    async fn publish_some(&mut self, domain: &'static str) -> Result<usize, PublishError> {
        // One process at a time, and no row locked while Kafka is waited for.
        let mut transaction = self.pool.begin().await?;
        let ours = sqlx::query_scalar!(
            r#"SELECT pg_try_advisory_xact_lock(hashtextextended('sightline.outbox.' || $1, 0)) AS "ours!""#,
            domain
        )
        .fetch_one(&mut *transaction)
        .await?;
        if !ours {
            return Ok(0);
        }
        let letters = sqlx::query_file_as!(
            Letter,
            "src/projector/sql/dead_letters_to_publish.sql",
            domain,
            LETTERS,
            BYTES,
            self.with_values
        )
        .fetch_all(&mut *transaction)
        .await?;
        if letters.is_empty() {
            return Ok(0);
        }
        for letter in &letters {
            self.make_topic(topic_of(&letter.topic, domain)).await?;
        }
        let producer = self.producer()?;
        let sent = letters
            .iter()
            .map(|letter| send(&producer, domain, letter, self.with_values));
        let sent = futures_util::future::join_all(sent).await;
        let (mut ids, mut refused): (Vec<Uuid>, _) = (Vec::new(), None);
        for (letter, mut sent) in letters.iter().zip(sent) {
            // It may be only because of those that went with it.
            for with_values in [self.with_values, false] {
                if is_too_large(&sent) {
                    sent = send(&producer, domain, letter, with_values).await;
                }
            }
            match sent {
                Ok(()) => ids.push(letter.id),
                Err(error) => refused = Some(error),
            }
        }
        sqlx::query!(
            "UPDATE sightline.dead_letters SET published_at = now() WHERE id = ANY ($1)",
            &ids
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        match refused {
            None => Ok(ids.len()),
            Some(error) => {
                // The producer may have failed for good, and a topic may be gone.
                self.producer = None;
                self.topics.clear();
                Err(error.into())
            }
        }
    }

    fn producer(&mut self) -> Result<FutureProducer, KafkaError> {
        if let Some(producer) = &self.producer {
            return Ok(producer.clone());
        }
        let producer: FutureProducer = self.config.create()?;
        Ok(self.producer.insert(producer).clone())
    }

    /// Makes a topic, unless it is there. Who may not make any goes on: it may be there, or be made by the broker.
    async fn make_topic(&mut self, name: String) -> Result<(), KafkaError> {
        if self.topics.contains(&name) {
            return Ok(());
        }
        let (config, wanted) = (self.config.clone(), name.clone());
        let found = tokio::task::spawn_blocking(move || {
            let admin: AdminClient<DefaultClientContext> = config.create()?;
            // Who asks for one topic alone may be given it, with more than one partition.
            let all = admin.inner().fetch_metadata(None, TIMEOUT)?;
            let is_there = all.topics().iter().any(|topic| topic.name() == wanted);
            KafkaResult::Ok((admin, is_there))
        });
        // Where it panicked the panic hook has told it.
        let (admin, is_there) = found.await.map_err(|_| KafkaError::Canceled)??;
        if is_there {
            self.topics.insert(name);
            return Ok(());
        }
        // As many copies as the brokers make by default (KIP-464).
        let topic = NewTopic::new(&name, 1, TopicReplication::Fixed(-1));
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
        match admin
            .create_topics([&topic], &options)
            .await
            .map(|made| made.into_iter().next())
        {
            Ok(Some(Ok(_))) => tracing::info!(topic = name, "made the topic for dead letters"),
            Ok(Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) | None) => {}
            Ok(Some(Err((
                _,
                code @ (RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::PolicyViolation),
            )))) => {
                tracing::info!(topic = name, %code, "may not make the topic for dead letters: it has to be there")
            }
            Ok(Some(Err((_, code)))) => return Err(KafkaError::AdminOp(code)),
            Err(error) => return Err(error),
        }
        self.topics.insert(name);
        Ok(())
    }
}

async fn send(
    producer: &FutureProducer,
    domain: &str,
    letter: &Letter,
    with_values: bool,
) -> Result<(), KafkaError> {
    let message = match &letter.field {
        Some(field) => format!("{}: {field}", letter.reason),
        None => letter.reason.clone(),
    };
    let (partition, offset) = (
        letter.partition.to_string(),
        letter.record_offset.to_string(),
    );
    let id = letter.id.to_string();
    let mut headers = OwnedHeaders::new();
    for (key, value) in [
        ("__streams.errors.exception", Some(letter.class.as_str())),
        ("__streams.errors.message", Some(message.as_str())),
        ("__streams.errors.topic", Some(letter.topic.as_str())),
        ("__streams.errors.partition", Some(partition.as_str())),
        ("__streams.errors.offset", Some(offset.as_str())),
        ("sightline.domain", Some(domain)),
        ("sightline.dead-letter-id", Some(id.as_str())),
        ("sightline.event-type", letter.event_type.as_deref()),
    ] {
        if value.is_some() {
            headers = headers.insert(Header { key, value });
        }
    }
    let topic = topic_of(&letter.topic, domain);
    let mut record = FutureRecord::<[u8], [u8]>::to(&topic).headers(headers);
    if with_values {
        record.key = letter.record_key.as_deref();
        record.payload = letter.value.as_deref();
    }
    producer
        .send(record, TIMEOUT)
        .await
        .map(drop)
        .map_err(|(error, _)| error)
}

fn is_too_large(sent: &Result<(), KafkaError>) -> bool {
    let code = RDKafkaErrorCode::MessageSizeTooLarge;
    *sent == Err(KafkaError::MessageProduction(code))
}

/// The dead letter topic of a domain for a topic.
pub fn topic_of(topic: &str, domain: &str) -> String {
    format!("{topic}.dlq.{domain}")
}
