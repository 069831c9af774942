//! Verification: walks the chain of each log and finds the first entry that was changed, removed, inserted or moved, and
//! a tail that was cut off.
//!
//! Write access to the database is not enough to compute a link: that takes the key. A cut-off end, with the recorded head moved
//! back, shows in the books, unless these are changed as well, and to a caller who kept an earlier head.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::chain::{self, BEGINNING, Chained, Digests, Key, Link};
use super::model::{BrokenEntry, ChainProblem, Verification};
use crate::error::{Code, Error};
use crate::event::hash16;
use crate::query::{Reads, permit};

/// How many entries a statement reads.
const SLICE: i64 = 4_000;
/// The longest head that is read, in characters.
const MAX_HEAD_LENGTH: usize = 256 * 1024;

/// One verification runs at a time: it reads all entries, and others would take the connections of reads.
static VERIFYING: Mutex<()> = Mutex::const_new(());

/// Checks the chains. `expected_head` is the head of a former answer: the chains must still contain it.
///
/// # Errors
/// INVALID_ARGUMENT: the expected head is none, or can't be compared because a rebuild has replaced its chains.
/// AUDIT_KEY_DIFFERS. The database's errors.
pub async fn verify(
    reads: &Reads,
    key: &Key,
    expected_head: Option<&str>,
) -> Result<Verification, Error> {
    let expected = expected_head.map(ExpectedHead::read).transpose()?;
    let _one = permit::wait_without_permit(VERIFYING.lock()).await;
    // A switch in between makes other tables the live ones.
    loop {
        if let Some(verification) = verify_once(reads, key, expected.as_ref()).await? {
            return Ok(verification);
        }
    }
}

/// `None` if a switch came in between.
async fn verify_once(
    reads: &Reads,
    key: &Key,
    expected: Option<&ExpectedHead>,
) -> Result<Option<Verification>, Error> {
    let heads = heads(reads).await?;
    let version = heads.first().map_or(0, |head| head.version);
    let mut former_heads = former_heads(reads, version).await?;
    let (mut entries_checked, mut first_broken) = (0, None);
    for head in &heads {
        if head.sequence > 0 && head.key_id.as_deref() != key.id() {
            return Err(Error::new(
                Code::AuditKeyDiffers,
                "The chains were made with another key than this process has.",
            ));
        }
        let mut walk = Walk {
            key,
            head,
            former_heads: former_heads.remove(&head.log_id).unwrap_or_default(),
            sequence: 0,
            link: BEGINNING,
            last: None,
            expected: expected
                .filter(|expected| expected.version == version)
                .and_then(|expected| expected.of_chain(head)),
        };
        let Some(mut problem) = walk.run(reads).await? else {
            return Ok(None);
        };
        if let (Some(expected), Ok(())) = (expected, &problem)
            && expected.version != version
        {
            problem = walk.compare_with_former(expected)?;
        }
        entries_checked += walk.sequence;
        if let Err(broken) = problem {
            first_broken = Some(broken);
            break;
        }
    }
    if first_broken.is_none() {
        first_broken = expected.and_then(|expected| expected.missing_in(&heads));
    }
    Ok(Some(Verification {
        valid: first_broken.is_none(),
        entries_checked,
        first_broken,
        keyed: key.id().is_some(),
        head: ExpectedHead::of(version, &heads).write()?,
    }))
}

/// How far the chain of a log reaches, as it is recorded.
struct Head {
    version: i32,
    log_id: i32,
    topic: String,
    partition: i32,
    sequence: i64,
    link: Link,
    key_id: Option<Vec<u8>>,
    /// How many events of the log were applied.
    applied: i64,
    /// The number, offset and event id of the last entry.
    last: Option<(i64, i64, String)>,
}

async fn heads(reads: &Reads) -> Result<Vec<Head>, Error> {
    let rows = sqlx::query_file!("src/domains/audit/sql/get_heads.sql")
        .fetch_all(reads.pool())
        .await
        .map_err(|error| Error::from(error).in_statement("audit/get_heads"))?;
    Ok(rows
        .into_iter()
        .map(|row| Head {
            version: row.version,
            log_id: row.log_id,
            topic: row.topic,
            partition: row.partition,
            sequence: row.sequence.unwrap_or(0),
            // A link of another length is none of the chain's, which shows.
            link: row
                .link
                .and_then(|link| link.try_into().ok())
                .unwrap_or(BEGINNING),
            key_id: row.key_id,
            applied: row.applied,
            last: row
                .last_sequence
                .zip(row.last_offset)
                .zip(row.last_event_id)
                .map(|((sequence, offset), event_id)| (sequence, offset, event_id)),
        })
        .collect())
}

/// Where a chain goes on with the head of a former version's chain.
struct FormerHead {
    /// The number of the entry before.
    sequence: i64,
    version: i32,
    former_sequence: i64,
    link: Vec<u8>,
}

/// The former heads in a version's chains, by log.
async fn former_heads(
    reads: &Reads,
    version: i32,
) -> Result<BTreeMap<i32, Vec<FormerHead>>, Error> {
    let rows = sqlx::query!(
        "SELECT log_id, sequence, former_version, former_sequence, former_link
         FROM audit.former_heads WHERE version = $1 ORDER BY log_id, sequence, id",
        version
    )
    .fetch_all(reads.pool())
    .await
    .map_err(|error| Error::from(error).in_statement("audit/former_heads"))?;
    let mut former_heads: BTreeMap<i32, Vec<FormerHead>> = BTreeMap::new();
    for row in rows {
        former_heads
            .entry(row.log_id)
            .or_default()
            .push(FormerHead {
                sequence: row.sequence,
                version: row.former_version,
                former_sequence: row.former_sequence,
                link: row.former_link,
            });
    }
    Ok(former_heads)
}

/// An entry as it is stored.
struct Stored {
    version: i32,
    sequence: i64,
    action: i16,
    partition: i32,
    record_offset: i64,
    occurred_at: DateTime<Utc>,
    recorded_at: DateTime<Utc>,
    event_id: String,
    user_key: Option<Uuid>,
    actor_key: Option<Uuid>,
    role_key: Option<Uuid>,
    permission_key: Option<Uuid>,
    ip_key: Option<Uuid>,
    facts: String,
    ip_address: Option<String>,
    user_agent: Option<String>,
    changed_values: Option<String>,
    salts: Option<Vec<u8>>,
    digests: Option<Vec<u8>>,
    link: Vec<u8>,
}

impl Stored {
    /// The digests of the values, or what an erasure has left of them. `None` if they do not belong to the values.
    fn digests(&self) -> Option<Digests> {
        let values = [
            self.ip_address.as_deref(),
            self.user_agent.as_deref(),
            self.changed_values.as_deref(),
        ];
        let ip_key = self.ip_address.as_deref().map(|ip| hash16(ip.as_bytes()));
        if self.ip_key != ip_key {
            return None;
        }
        match &self.digests {
            Some(digests) if values.iter().all(Option::is_none) => chain::stored_digests(digests),
            Some(_) => None,
            None => chain::digests(values, self.salts.as_deref().unwrap_or_default()),
        }
    }

    /// Whether it is the entry of this number behind a link.
    fn follows(&self, key: &Key, topic: &str, before: &Link, sequence: i64) -> bool {
        let Some(digests) = self.digests() else {
            return false;
        };
        let chained = Chained {
            topic,
            partition: self.partition,
            offset: self.record_offset,
            action: self.action,
            occurred_at: self.occurred_at,
            recorded_at: self.recorded_at,
            event_id: &self.event_id,
            user_key: self.user_key,
            actor_key: self.actor_key,
            role_key: self.role_key,
            permission_key: self.permission_key,
            facts: &self.facts,
            digests,
        };
        key.link(before, sequence, &chained)[..] == self.link
    }
}

/// Where a walk has come.
struct Walk<'w> {
    key: &'w Key,
    head: &'w Head,
    former_heads: Vec<FormerHead>,
    sequence: i64,
    link: Link,
    /// Offset and event id of the last entry.
    last: Option<(i64, String)>,
    expected: Option<&'w ExpectedChain>,
}

impl Walk<'_> {
    /// Walks the chain to its head. Returns what is wrong with it; `None` if a switch came in between.
    async fn run(&mut self, reads: &Reads) -> Result<Option<Result<(), BrokenEntry>>, Error> {
        if let Err(broken) = self.pass_former_heads() {
            return Ok(Some(Err(broken)));
        }
        let mut after = i64::MIN;
        loop {
            let entries = sqlx::query_file_as!(
                Stored,
                "src/domains/audit/sql/get_links.sql",
                self.head.log_id,
                after,
                SLICE
            )
            .fetch_all(reads.pool())
            .await
            .map_err(|error| Error::from(error).in_statement("audit/get_links"))?;
            let Some(last) = entries.last() else { break };
            after = last.sequence;
            if last.version != self.head.version {
                return Ok(None);
            }
            for (index, entry) in entries.iter().enumerate() {
                // What was written after the head was read.
                if entry.sequence > self.head.sequence {
                    break;
                }
                if let Err(broken) = self.pass(entry, entries.get(index + 1)) {
                    return Ok(Some(Err(broken)));
                }
            }
            if after >= self.head.sequence {
                break;
            }
        }
        Ok(Some(self.end()))
    }

    fn pass(&mut self, entry: &Stored, next: Option<&Stored>) -> Result<(), BrokenEntry> {
        let sequence = self.sequence + 1;
        let broken = |problem| Err(self.broken(problem, entry.record_offset, &entry.event_id));
        if entry.sequence < sequence {
            return broken(ChainProblem::Inserted);
        }
        if entry.sequence > sequence {
            return broken(ChainProblem::Removed);
        }
        let follows =
            |entry: &Stored| entry.follows(self.key, &self.head.topic, &self.link, sequence);
        if !follows(entry) {
            // Without this one, the next one would be right.
            return broken(match next.is_some_and(follows) {
                true => ChainProblem::Inserted,
                false => ChainProblem::Changed,
            });
        }
        self.sequence = sequence;
        // It is equal to the computed one, which is a link.
        self.link.copy_from_slice(&entry.link);
        self.last = Some((entry.record_offset, entry.event_id.clone()));
        self.pass_former_heads()
    }

    /// Goes on with the former heads at this place, and compares the place with what is expected there.
    fn pass_former_heads(&mut self) -> Result<(), BrokenEntry> {
        let mut is_met = self.is_expected();
        for former in &self.former_heads {
            if former.sequence == self.sequence {
                let (version, sequence) = (former.version, former.former_sequence);
                self.link = self.key.follow(&self.link, version, sequence, &former.link);
                is_met |= self.is_expected();
            }
        }
        match self.expected {
            Some(expected) if expected.sequence == self.sequence && !is_met => {
                Err(self.broken_at_last(ChainProblem::Changed))
            }
            _ => Ok(()),
        }
    }

    /// Compares the head of a former version's chain with what this chain, which was walked, holds of that one.
    fn compare_with_former(
        &self,
        expected: &ExpectedHead,
    ) -> Result<Result<(), BrokenEntry>, Error> {
        let Some(chain) = expected.of_chain(self.head) else {
            return Ok(Ok(()));
        };
        let is_former = |former: &&FormerHead| former.version == expected.version;
        let mut former = self.former_heads.iter().filter(is_former).peekable();
        let is_replaced = former.peek().is_none();
        let former = former.find(|former| former.former_sequence >= chain.sequence);
        Ok(match former {
            Some(former) if former.former_sequence == chain.sequence => {
                if BASE64_URL_SAFE_NO_PAD.encode(&former.link) == chain.link {
                    Ok(())
                } else {
                    Err(self.broken_at_last(ChainProblem::Changed))
                }
            }
            None if !is_replaced => Err(self.broken_at_last(ChainProblem::TailCut)),
            _ => {
                let problem = "is of chains that a rebuild has replaced since: only their last heads can still be compared";
                return Err(Error::invalid("expectedHead", problem));
            }
        })
    }

    fn is_expected(&self) -> bool {
        self.expected.is_some_and(|expected| {
            expected.sequence == self.sequence
                && expected.link == BASE64_URL_SAFE_NO_PAD.encode(self.link)
        })
    }

    /// Compares the end of the walk with what is recorded of it.
    fn end(&self) -> Result<(), BrokenEntry> {
        let head = self.head;
        let is_cut = self.sequence < head.sequence
            || head.sequence < head.applied
            || self
                .expected
                .is_some_and(|expected| expected.sequence > head.sequence);
        if is_cut {
            return Err(self.broken_at_last(ChainProblem::TailCut));
        }
        if let Some((sequence, offset, event_id)) = &head.last
            && (*sequence > head.sequence || head.sequence > head.applied)
        {
            return Err(self.broken(ChainProblem::Inserted, *offset, event_id));
        }
        if self.link != head.link {
            return Err(self.broken_at_last(ChainProblem::Changed));
        }
        Ok(())
    }

    fn broken_at_last(&self, problem: ChainProblem) -> BrokenEntry {
        match &self.last {
            Some((offset, event_id)) => self.broken(problem, *offset, event_id),
            None => BrokenEntry {
                offset: None,
                event_id: None,
                ..self.broken(problem, 0, "")
            },
        }
    }

    fn broken(&self, problem: ChainProblem, offset: i64, event_id: &str) -> BrokenEntry {
        BrokenEntry {
            topic: self.head.topic.clone(),
            // A CHECK keeps it from being negative.
            partition: self.head.partition.unsigned_abs(),
            offset: Some(offset),
            event_id: Some(event_id.to_owned()),
            problem,
        }
    }
}

/// What an answer says of the chains' heads, for a later check.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedHead {
    version: i32,
    chains: Vec<ExpectedChain>,
}

/// A chain's head.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedChain {
    log_id: i32,
    topic: String,
    partition: u32,
    sequence: i64,
    link: String,
}

impl ExpectedHead {
    fn of(version: i32, heads: &[Head]) -> Self {
        let written = heads.iter().filter(|head| head.sequence > 0);
        let chains = written.map(|head| ExpectedChain {
            log_id: head.log_id,
            topic: head.topic.clone(),
            partition: head.partition.unsigned_abs(),
            sequence: head.sequence,
            link: BASE64_URL_SAFE_NO_PAD.encode(head.link),
        });
        Self {
            version,
            chains: chains.collect(),
        }
    }

    fn write(&self) -> Result<String, Error> {
        let json = serde_json::to_vec(self)
            .map_err(|_| Error::internal("a head that is not serializable"))?;
        Ok(BASE64_URL_SAFE_NO_PAD.encode(json))
    }

    fn read(head: &str) -> Result<Self, Error> {
        if head.is_empty() {
            return Err(Error::empty("expectedHead"));
        }
        let bytes = Some(head)
            .filter(|head| head.len() <= MAX_HEAD_LENGTH)
            .and_then(|head| BASE64_URL_SAFE_NO_PAD.decode(head).ok());
        let head = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        head.ok_or_else(|| Error::invalid("expectedHead", "is not a head of the audit log"))
    }

    /// A chain that is expected and that there is not.
    fn missing_in(&self, heads: &[Head]) -> Option<BrokenEntry> {
        let is_missing =
            |chain: &&ExpectedChain| heads.iter().all(|head| head.log_id != chain.log_id);
        self.chains
            .iter()
            .find(is_missing)
            .map(|chain| BrokenEntry {
                topic: chain.topic.clone(),
                partition: chain.partition,
                offset: None,
                event_id: None,
                problem: ChainProblem::TailCut,
            })
    }

    /// What is expected of a chain.
    fn of_chain(&self, head: &Head) -> Option<&ExpectedChain> {
        self.chains.iter().find(|chain| chain.log_id == head.log_id)
    }
}
