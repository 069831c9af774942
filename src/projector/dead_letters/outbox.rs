//! Publishes dead letters to the topic `<topic>.dlq.<domain>`. The table is the outbox: a dead letter is marked as published
//! after Kafka has acknowledged it, so each arrives at least once, and perhaps again after a crash. One that Kafka refuses is
//! tried again later, and the others go on. Each domain has its own outbox, so that the time-outs of one delay no other. No
//! transaction is open while Kafka is waited for: the server would end its session.
//!
//! Headers are those that Kafka Streams gives to dead letters (KIP-1034), and some of our own. Key and value are personal
//! data: they are published only if the settings say so.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};
use uuid::Uuid;

use crate::db;
use crate::kafka::group::{self, PUBLISH_TIMEOUT};

/// At most so many dead letters and bytes are published at a time, but always one.
const MAX_DEAD_LETTERS: i64 = 200;
const MAX_BYTES: i64 = 16 << 20;
/// How long it pauses between two passes.
const INTERVAL: Duration = Duration::from_secs(2);
/// The server ends the session of a process that is frozen for so long, so that another one publishes. Where Kafka only took
/// that long, the next pass marks what was acknowledged.
const IDLE_SESSION_TIMEOUT: &str = "30s";

/// Publishes the dead letters of a domain.
pub struct Outbox {
    domain: &'static str,
    pool: PgPool,
    config: ClientConfig,
    with_values: bool,
    producer: Option<FutureProducer>,
    /// The topics that were found or created.
    topics: HashSet<String>,
    /// Dead letters that Kafka has acknowledged and that are not marked as published yet. The next pass marks them first,
    /// so that a database which fails meanwhile makes none of them published again and again.
    acknowledged: Vec<Uuid>,
    /// Whether the last pass failed: a failure is logged once, not at every pass.
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

/// One pass over the dead letters that were not published yet.
#[derive(Default)]
struct Pass {
    /// All up to this id were sent, or left for the next pass.
    after: Uuid,
    published: usize,
    /// Topics of which Kafka refused a dead letter for a reason that holds for others, too: the rest is left for the next
    /// pass.
    failed_topics: Vec<String>,
    /// The last error of those that Kafka refused.
    refused: Option<KafkaError>,
}

/// What lets one process publish a domain's dead letters at a time: a lock of its session. Unless it is released, the
/// connection is closed, so that none comes back to the pool with the lock.
struct Lock {
    connection: PoolConnection<Postgres>,
    may_be_held: bool,
}

impl Lock {
    /// `None` while another process has it.
    async fn take(pool: &PgPool, domain: &str) -> Result<Option<Self>, sqlx::Error> {
        let mut lock = Lock {
            connection: pool.acquire().await?,
            may_be_held: true,
        };
        lock.may_be_held = sqlx::query_scalar(
            "SELECT CASE WHEN pg_try_advisory_lock(hashtextextended('sightline.outbox.' || $1, 0))
                    THEN set_config('idle_session_timeout', $2, false) IS NOT NULL
                    ELSE false END",
        )
        .bind(domain)
        .bind(IDLE_SESSION_TIMEOUT)
        .fetch_one(&mut *lock.connection)
        .await?;
        Ok(lock.may_be_held.then_some(lock))
    }

    /// Gives the lock and the connection back.
    async fn release(mut self, domain: &str) -> Result<(), sqlx::Error> {
        sqlx::query("RESET idle_session_timeout")
            .execute(&mut *self.connection)
            .await?;
        sqlx::query("SELECT pg_advisory_unlock(hashtextextended('sightline.outbox.' || $1, 0))")
            .bind(domain)
            .execute(&mut *self.connection)
            .await?;
        self.may_be_held = false;
        Ok(())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.may_be_held {
            self.connection.close_on_drop();
        }
    }
}

impl Pass {
    fn fail(&mut self, topic: &str, error: KafkaError) {
        if !self.failed_topics.iter().any(|failed| failed == topic) {
            self.failed_topics.push(topic.to_owned());
        }
        self.refused = Some(error);
    }
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
    pub fn new(
        domain: &'static str,
        pool: PgPool,
        kafka: &ClientConfig,
        with_values: bool,
    ) -> Self {
        Outbox {
            domain,
            pool,
            config: group::outbox_config(kafka),
            with_values,
            producer: None,
            topics: HashSet::new(),
            acknowledged: Vec::new(),
            troubled: false,
        }
    }

    /// Publishes dead letters until it is dropped.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.publish().await;
        }
    }

    /// Publishes all dead letters of the domain's live version that were not published yet. One that Kafka refuses holds up
    /// no other.
    async fn publish(&mut self) {
        let domain = self.domain;
        let mut pass = Pass::default();
        if let Err(error) = self.publish_all(&mut pass).await {
            // The producer may have failed for good, or a topic may have been deleted.
            self.producer = None;
            self.topics.clear();
            if !std::mem::replace(&mut self.troubled, true) {
                tracing::warn!(domain, %error, "dead letters can't be published; trying again until they can");
            }
        } else if pass.published > 0 && std::mem::take(&mut self.troubled) {
            tracing::info!(domain, "dead letters are published again");
        }
    }

    async fn publish_all(&mut self, pass: &mut Pass) -> Result<(), PublishError> {
        let taken = Lock::take(&self.pool, self.domain);
        let Some(mut lock) = db::within(db::STEP_DEADLINE, taken).await? else {
            return Ok(());
        };
        db::within(db::STEP_DEADLINE, self.mark(&mut lock.connection)).await?;
        while self.publish_some(&mut lock.connection, pass).await? {}
        db::within(db::STEP_DEADLINE, lock.release(self.domain)).await?;
        match pass.refused.take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Publishes the next dead letters. Returns whether there may be more.
    async fn publish_some(
        &mut self,
        connection: &mut PgConnection,
        pass: &mut Pass,
    ) -> Result<bool, sqlx::Error> {
        let read = sqlx::query_file_as!(
            UnpublishedDeadLetter,
            "src/projector/sql/dead_letters_to_publish.sql",
            self.domain,
            MAX_DEAD_LETTERS,
            MAX_BYTES,
            self.with_values,
            pass.after,
            &pass.failed_topics
        )
        .fetch_all(&mut *connection);
        let dead_letters = db::within(db::STEP_DEADLINE, read).await?;
        let Some(last) = dead_letters.last() else {
            return Ok(false);
        };
        pass.after = last.id;
        self.acknowledged = self.send_all(&dead_letters, pass).await;
        let published = self.acknowledged.len();
        db::within(db::STEP_DEADLINE, self.mark(connection)).await?;
        pass.published += published;
        Ok(true)
    }

    /// Marks as published what Kafka has acknowledged.
    async fn mark(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.acknowledged.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "UPDATE sightline.dead_letters SET published_at = now() WHERE id = ANY ($1)",
            &self.acknowledged
        )
        .execute(connection)
        .await?;
        self.acknowledged.clear();
        Ok(())
    }

    /// Sends dead letters. Returns the ids of those that Kafka acknowledged.
    async fn send_all(
        &mut self,
        dead_letters: &[UnpublishedDeadLetter],
        pass: &mut Pass,
    ) -> Vec<Uuid> {
        let topics: BTreeSet<&str> = dead_letters
            .iter()
            .map(|dead_letter| dead_letter.topic.as_str())
            .collect();
        for topic in topics {
            if let Err(error) = self.ensure_topic(topic_of(topic, self.domain)).await {
                pass.fail(topic, error);
            }
        }
        let producer = match self.producer() {
            Ok(producer) => producer,
            Err(error) => {
                for dead_letter in dead_letters {
                    pass.fail(&dead_letter.topic, error.clone());
                }
                return Vec::new();
            }
        };
        let (domain, with_values) = (self.domain, self.with_values);
        let sendable: Vec<&UnpublishedDeadLetter> = dead_letters
            .iter()
            .filter(|dead_letter| !pass.failed_topics.contains(&dead_letter.topic))
            .collect();
        let sends = sendable
            .iter()
            .map(|dead_letter| send(&producer, domain, dead_letter, with_values));
        let sent = futures_util::future::join_all(sends).await;
        let mut published = Vec::new();
        for (dead_letter, mut sent) in sendable.into_iter().zip(sent) {
            // It may be too large only together with others of its batch, or with its value.
            for with_values in [with_values, false] {
                if is_too_large(&sent) {
                    sent = send(&producer, domain, dead_letter, with_values).await;
                }
            }
            match sent {
                Ok(()) => published.push(dead_letter.id),
                Err(error) if is_of_record(&error) => pass.refused = Some(error),
                Err(error) => pass.fail(&dead_letter.topic, error),
            }
        }
        published
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
            let all = admin.inner().fetch_metadata(None, PUBLISH_TIMEOUT)?;
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
    let options = AdminOptions::new().request_timeout(Some(PUBLISH_TIMEOUT));
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
        .send(record, PUBLISH_TIMEOUT)
        .await
        .map(drop)
        .map_err(|(error, _)| error)
}

/// Whether Kafka refused a dead letter for what it is itself, so that others of its topic may go through.
fn is_of_record(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageProduction(
            RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidRecord
        )
    )
}

fn is_too_large(sent: &KafkaResult<()>) -> bool {
    let code = RDKafkaErrorCode::MessageSizeTooLarge;
    *sent == Err(KafkaError::MessageProduction(code))
}

/// The topic of a domain's dead letters of a topic.
pub fn topic_of(topic: &str, domain: &str) -> String {
    format!("{topic}.dlq.{domain}")
}
