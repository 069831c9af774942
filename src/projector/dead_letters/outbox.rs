//! Publishes dead letters to the topic `<topic>.dlq.<domain>`. The table is the outbox: a dead letter is marked as published
//! after Kafka has acknowledged it, so each arrives at least once, and perhaps again after a crash. One that Kafka refuses is
//! tried again with the next ones.
//!
//! Headers are those that Kafka Streams gives to dead letters (KIP-1034), and some of our own. Key and value are personal
//! data: they are published only if the settings say so.

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

/// At most so many dead letters and bytes are published at a time, but always one.
const MAX_DEAD_LETTERS: i64 = 200;
const MAX_BYTES: i64 = 16 << 20;
/// How long Kafka may take to acknowledge one.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Publishes dead letters.
pub struct Outbox {
    pool: PgPool,
    config: ClientConfig,
    with_values: bool,
    producer: Option<FutureProducer>,
    /// The topics that were found or created.
    topics: HashSet<String>,
    /// Whether the last attempt failed: a failure is logged once, not at every attempt.
    troubled: bool,
}

/// What a dead letter is published with.
struct UnpublishedDeadLetter {
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
    /// Connects to Kafka with the first dead letter that it publishes.
    pub fn new(pool: PgPool, kafka: &ClientConfig, with_values: bool) -> Self {
        let mut config = kafka.clone();
        // These two are consumers' settings.
        config.remove("isolation.level").remove("group.protocol");
        config
            .set("enable.idempotence", "true")
            // The topic's own limit applies, not the client's.
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

    /// Publishes all dead letters of a domain's live version that were not published yet.
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
                        tracing::warn!(domain, %error, "dead letters can't be published; trying again until they can");
                    }
                    return;
                }
            }
        }
    }

    /// Returns how many were published: 0 when there are no more.
    async fn publish_some(&mut self, domain: &'static str) -> Result<usize, PublishError> {
        // The lock lets one process publish at a time, without locking rows while Kafka acknowledges.
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
        let dead_letters = sqlx::query_file_as!(
            UnpublishedDeadLetter,
            "src/projector/sql/dead_letters_to_publish.sql",
            domain,
            MAX_DEAD_LETTERS,
            MAX_BYTES,
            self.with_values
        )
        .fetch_all(&mut *transaction)
        .await?;
        if dead_letters.is_empty() {
            return Ok(0);
        }
        let (published, refused) = self.send_all(domain, &dead_letters).await?;
        sqlx::query!(
            "UPDATE sightline.dead_letters SET published_at = now() WHERE id = ANY ($1)",
            &published
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        match refused {
            None => Ok(published.len()),
            Some(error) => {
                // The producer may have failed for good, or a topic may have been deleted.
                self.producer = None;
                self.topics.clear();
                Err(error.into())
            }
        }
    }

    /// Sends dead letters. Returns the ids of those that Kafka acknowledged, and the last error of the others.
    async fn send_all(
        &mut self,
        domain: &'static str,
        dead_letters: &[UnpublishedDeadLetter],
    ) -> KafkaResult<(Vec<Uuid>, Option<KafkaError>)> {
        for dead_letter in dead_letters {
            let topic = topic_of(&dead_letter.topic, domain);
            self.ensure_topic(topic).await?;
        }
        let producer = self.producer()?;
        let sends = dead_letters
            .iter()
            .map(|dead_letter| send(&producer, domain, dead_letter, self.with_values));
        let sent = futures_util::future::join_all(sends).await;
        let (mut published, mut refused): (Vec<Uuid>, _) = (Vec::new(), None);
        for (dead_letter, mut sent) in dead_letters.iter().zip(sent) {
            // It may be too large only together with others of its batch, or with its value.
            for with_values in [self.with_values, false] {
                if is_too_large(&sent) {
                    sent = send(&producer, domain, dead_letter, with_values).await;
                }
            }
            match sent {
                Ok(()) => published.push(dead_letter.id),
                Err(error) => refused = Some(error),
            }
        }
        Ok((published, refused))
    }

    fn producer(&mut self) -> KafkaResult<FutureProducer> {
        if let Some(producer) = &self.producer {
            return Ok(producer.clone());
        }
        let producer: FutureProducer = self.config.create()?;
        Ok(self.producer.insert(producer).clone())
    }

    /// Creates a topic unless it exists. Without the right to create one, goes on: the topic may exist, or the broker may
    /// create it.
    async fn ensure_topic(&mut self, name: String) -> KafkaResult<()> {
        if self.topics.contains(&name) {
            return Ok(());
        }
        let (config, wanted) = (self.config.clone(), name.clone());
        let found = tokio::task::spawn_blocking(move || {
            let admin: AdminClient<DefaultClientContext> = config.create()?;
            // Metadata of one topic by name may make the broker create it, with its default number of partitions.
            let all = admin.inner().fetch_metadata(None, TIMEOUT)?;
            let exists = all.topics().iter().any(|topic| topic.name() == wanted);
            KafkaResult::Ok((admin, exists))
        });
        // Where it panicked, the panic hook has logged it.
        let (admin, exists) = found.await.map_err(|_| KafkaError::Canceled)??;
        if !exists {
            create_topic(&admin, &name).await?;
        }
        self.topics.insert(name);
        Ok(())
    }
}

async fn create_topic(admin: &AdminClient<DefaultClientContext>, name: &str) -> KafkaResult<()> {
    // The brokers' default replication factor (KIP-464).
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(-1));
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let created = admin.create_topics([&topic], &options).await?;
    match created.into_iter().next() {
        Some(Ok(_)) => tracing::info!(topic = name, "created the topic for dead letters"),
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) | None => {}
        Some(Err((
            _,
            code @ (RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::PolicyViolation),
        ))) => {
            tracing::info!(topic = name, %code, "no right to create the topic for dead letters: create it by hand");
        }
        Some(Err((_, code))) => return Err(KafkaError::AdminOp(code)),
    }
    Ok(())
}

async fn send(
    producer: &FutureProducer,
    domain: &str,
    dead_letter: &UnpublishedDeadLetter,
    with_values: bool,
) -> KafkaResult<()> {
    let message = match &dead_letter.field {
        Some(field) => format!("{}: {field}", dead_letter.reason),
        None => dead_letter.reason.clone(),
    };
    let partition = dead_letter.partition.to_string();
    let offset = dead_letter.record_offset.to_string();
    let id = dead_letter.id.to_string();
    let mut headers = OwnedHeaders::new();
    for (key, value) in [
        (
            "__streams.errors.exception",
            Some(dead_letter.class.as_str()),
        ),
        ("__streams.errors.message", Some(message.as_str())),
        ("__streams.errors.topic", Some(dead_letter.topic.as_str())),
        ("__streams.errors.partition", Some(partition.as_str())),
        ("__streams.errors.offset", Some(offset.as_str())),
        ("sightline.domain", Some(domain)),
        ("sightline.dead-letter-id", Some(id.as_str())),
        ("sightline.event-type", dead_letter.event_type.as_deref()),
    ] {
        if value.is_some() {
            headers = headers.insert(Header { key, value });
        }
    }
    let topic = topic_of(&dead_letter.topic, domain);
    let mut record = FutureRecord::<[u8], [u8]>::to(&topic).headers(headers);
    if with_values {
        record.key = dead_letter.record_key.as_deref();
        record.payload = dead_letter.value.as_deref();
    }
    producer
        .send(record, TIMEOUT)
        .await
        .map(drop)
        .map_err(|(error, _)| error)
}

fn is_too_large(sent: &KafkaResult<()>) -> bool {
    let code = RDKafkaErrorCode::MessageSizeTooLarge;
    *sent == Err(KafkaError::MessageProduction(code))
}

/// The topic of a domain's dead letters of a topic.
pub fn topic_of(topic: &str, domain: &str) -> String {
    format!("{topic}.dlq.{domain}")
}
