//! Finds out whether the database was restored to an earlier state, for work queues, which hand out nothing then until an
//! operator resumes the domain. (A worker compares, too, but only when it claims a partition.)

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, TopicPartitionList};
use sqlx::PgPool;

use super::progress::{self, WentBack};
use super::{Projection, View, members};
use crate::db;
use crate::kafka::consumer::{self, TopicPartition};
use crate::kafka::group;

/// How long Kafka may take to return the committed offsets.
const ANSWER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// Compares positions with the offsets that were committed to Kafka. Cheap to clone.
#[derive(Clone)]
pub struct RestoreCheck {
    /// The database, with the rights of a projector.
    pub pool: PgPool,
    /// The connection to Kafka.
    pub kafka: ClientConfig,
    /// The prefix of consumer groups.
    pub group_prefix: String,
}

/// Why it is not known whether the database was restored.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Kafka does not answer.
    #[error("Kafka failed: {0}")]
    Kafka(#[from] KafkaError),
    /// The database failed.
    #[error("{}", db::describe(.0))]
    Database(#[from] sqlx::Error),
}

/// A log of the live version.
struct Log {
    id: i32,
    partition: TopicPartition,
    identity: String,
}

impl RestoreCheck {
    /// Compares the positions of a domain's live version with the committed offsets. Where these are ahead, notes that
    /// the database was restored.
    ///
    /// # Errors
    /// See [`CheckError`].
    pub async fn check(&self, projection: &dyn Projection) -> Result<(), CheckError> {
        let domain = projection.domain();
        let rows = sqlx::query!(
            "SELECT v.version, l.log_id, l.topic, l.topic_identity, l.partition
             FROM sightline.views v
             JOIN sightline.progress p ON p.domain = v.domain AND p.version = v.version AND p.ended_at IS NULL
             JOIN sightline.logs l USING (log_id)
             WHERE v.domain = $1 AND v.state = 'live'",
            domain
        )
        .fetch_all(&self.pool)
        .await?;
        let Some(version) = rows.first().map(|row| row.version) else {
            return Ok(());
        };
        let logs: Vec<Log> = rows
            .into_iter()
            .map(|row| Log {
                id: row.log_id,
                partition: TopicPartition {
                    topic: row.topic.into(),
                    partition: row.partition,
                },
                identity: row.topic_identity,
            })
            .collect();
        let mut config = group::consumer_config(&self.kafka);
        config.set(
            "group.id",
            members::group_of(&self.group_prefix, &View { domain, version }),
        );
        let committed = tokio::task::spawn_blocking(move || committed(&config, &logs)).await;
        let committed = committed.map_err(|_| KafkaError::Canceled)??;
        let (logs, offsets): (Vec<i32>, Vec<i64>) = committed.into_iter().unzip();
        // Positions are read after the offsets, which follow them.
        let passed = sqlx::query!(
            r#"SELECT c.log_id AS "log_id!", p.epoch, c.projected AS "projected!"
               FROM sightline.progress p
               JOIN unnest($3::integer[], $4::bigint[]) AS c (log_id, projected) USING (log_id)
               WHERE p.domain = $1 AND p.version = $2 AND c.projected > p.next_offset"#,
            domain,
            version,
            &logs,
            &offsets
        )
        .fetch_all(&self.pool)
        .await?;
        let passed: Vec<WentBack> = passed
            .into_iter()
            .map(|row| WentBack {
                log_id: row.log_id,
                epoch: row.epoch,
                projected: Some(row.projected),
            })
            .collect();
        if !passed.is_empty()
            && progress::note_went_back(&self.pool, projection, version, &passed).await?
        {
            tracing::error!(
                domain,
                "the database was restored to an earlier state: projecting again what it lacks"
            );
        }
        Ok(())
    }
}

/// The offsets that were committed, by log. Blocks.
fn committed(config: &ClientConfig, logs: &[Log]) -> Result<Vec<(i32, i64)>, KafkaError> {
    let consumer: BaseConsumer = config.create()?;
    let mut asked = TopicPartitionList::new();
    for log in logs {
        asked.add_partition(&log.partition.topic, log.partition.partition);
    }
    let found = consumer.committed_offsets(asked, ANSWER_TIMEOUT)?;
    let mut committed = Vec::new();
    for log in logs {
        let offset = consumer::committed(&found, &log.partition, &log.identity)?;
        committed.extend(offset.map(|offset| (log.id, offset)));
    }
    Ok(committed)
}
