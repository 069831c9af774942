//! How events become the audit log: an entry each, chained to the one before of its log; what they say to alerts;
//! and the erasure of users.

use std::collections::{BTreeMap, HashMap, HashSet};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::chain::{self, BEGINNING, Chained, Key, Link, SALT_BYTES};
use super::model::{Action, Category};
use super::state::{self, Facts, Personal};
use super::{Audit, alerts, erasure};
use crate::db;
use crate::event::{TypeName, hash16};
use crate::projector::{NewEvent, Projection, Target};

#[async_trait]
impl Projection for Audit {
    fn domain(&self) -> &'static str {
        "audit"
    }

    fn declared_code_version(&self) -> i32 {
        2
    }

    fn is_interested(&self, event_type: &TypeName) -> bool {
        match event_type {
            TypeName::Known { event_type, .. } => Action::of(Some(*event_type)).is_some(),
            TypeName::Unknown { .. } => true,
        }
    }

    /// Entries stand alone: one bad record must not switch off the detection of a user's failed logins. Only the events of
    /// roles and permissions depend on their order.
    fn parks(&self, event_type: Option<&TypeName>) -> bool {
        let Some(TypeName::Known { event_type, .. }) = event_type else {
            return false;
        };
        Action::of(Some(*event_type))
            .is_some_and(|action| action.category == Category::Authorization)
    }

    fn may_lose_records(&self) -> bool {
        false
    }

    async fn apply(&self, target: &mut Target<'_>, events: &[NewEvent]) -> Result<(), sqlx::Error> {
        let entries = NewEntry::all(target, events).await?;
        self.write(target, &entries).await?;
        erasure::apply(target.connection, events, self.settings.soft_retention_days).await?;
        // Other writers wait for these rows until the transaction ends, so they come last.
        alerts::count(target.connection, events, &self.settings).await
    }

    async fn on_switch(&self, connection: &mut PgConnection, from: i32) -> Result<(), sqlx::Error> {
        let chains = sqlx::query_file!("src/domains/audit/sql/get_former_chains.sql")
            .fetch_all(&mut *connection)
            .await?;
        let mut following = Chains::default();
        for chain in &chains {
            let before = Chain::read(
                &self.settings.key,
                chain.sequence,
                chain.link.as_deref(),
                chain.key_id.as_deref(),
            )?;
            let link = self.settings.key.follow(
                &before.link,
                from,
                chain.former_sequence,
                &chain.former_link,
            );
            following.add(chain.log_id, &Chain { link, ..before });
        }
        following.write(connection, &self.settings.key).await?;
        sqlx::query_file!("src/domains/audit/sql/add_former_heads.sql", from)
            .execute(connection)
            .await
            .map(drop)
    }

    async fn maintain(&self, pool: &PgPool) -> Result<bool, sqlx::Error> {
        erasure::sweep(pool).await?;
        Ok(false)
    }
}

/// An entry to write.
struct NewEntry<'e> {
    new_event: &'e NewEvent,
    action: Action,
    facts: Facts,
    /// The facts as stored.
    document: String,
    personal: Personal,
    changed_values: Option<String>,
    user_key: Option<Uuid>,
}

impl<'e> NewEntry<'e> {
    /// The entries of events, in their order: without what is personal of users who are erased.
    async fn all(
        target: &mut Target<'_>,
        events: &'e [NewEvent],
    ) -> Result<Vec<NewEntry<'e>>, sqlx::Error> {
        let mut entries: Vec<NewEntry<'e>> = events
            .iter()
            .map(NewEntry::of)
            .collect::<Result<_, sqlx::Error>>()?;
        let mut users: Vec<Uuid> = entries
            .iter()
            .filter(|entry| entry.values().iter().any(Option::is_some))
            .filter_map(|entry| entry.user_key)
            .collect();
        users.sort_unstable();
        users.dedup();
        if !users.is_empty() {
            let erased = erasure::erased(target.connection, &users).await?;
            let is_erased = |entry: &NewEntry<'_>| {
                entry
                    .user_key
                    .is_some_and(|user_key| erased.contains(&user_key))
            };
            for entry in entries.iter_mut().filter(|entry| is_erased(entry)) {
                (entry.personal, entry.changed_values) = (Personal::default(), None);
            }
        }
        Ok(entries)
    }

    fn of(new_event: &'e NewEvent) -> Result<Self, sqlx::Error> {
        let event = &new_event.event;
        let (facts, personal) = state::split(event);
        let changed_values = &personal.changed_values;
        Ok(Self {
            new_event,
            action: Action::of(event.event_type).unwrap_or(Action::UNKNOWN),
            document: db::to_document(&facts)?,
            changed_values: (!changed_values.is_empty())
                .then(|| db::to_document(changed_values))
                .transpose()?,
            user_key: facts.user_id.as_deref().map(key_of),
            facts,
            personal,
        })
    }

    /// The values that may be erased.
    fn values(&self) -> [Option<&str>; chain::ERASABLE] {
        [
            self.personal.ip_address.as_deref(),
            self.personal.user_agent.as_deref(),
            self.changed_values.as_deref(),
        ]
    }

    fn coordinates(&self) -> (i32, i64) {
        (self.new_event.log_id, self.new_event.offset)
    }
}

/// The hash by which entries are found.
fn key_of(id: &str) -> Uuid {
    hash16(id.as_bytes())
}

/// When an event was recorded, and the salts of its values.
#[derive(Clone)]
struct Stamp {
    recorded_at: DateTime<Utc>,
    salts: Option<Vec<u8>>,
}

impl Stamp {
    /// A stamp with as many salts as there are values: those that it has, or new ones, where they were erased.
    fn with_salts(mut self, values: [Option<&str>; chain::ERASABLE]) -> Result<Self, sqlx::Error> {
        let bytes = SALT_BYTES * values.iter().flatten().count();
        if self.salts.as_ref().map_or(0, Vec::len) != bytes {
            self.salts = new_salts(bytes)?;
        }
        Ok(self)
    }
}

fn new_salts(bytes: usize) -> Result<Option<Vec<u8>>, sqlx::Error> {
    if bytes == 0 {
        return Ok(None);
    }
    let mut salts = vec![0; bytes];
    getrandom::fill(&mut salts).map_err(|error| sqlx::Error::Io(error.into()))?;
    Ok(Some(salts))
}

/// How far the chain of a log reaches.
#[derive(Clone)]
struct Chain {
    sequence: i64,
    link: Link,
}

impl Chain {
    /// A chain as it is stored; one that has not begun where nothing is.
    ///
    /// A chain is made with one key. With another one the partition is stalled, until the process has the key again, or a
    /// rebuild has begun a new chain.
    fn read(
        key: &Key,
        sequence: Option<i64>,
        link: Option<&[u8]>,
        key_id: Option<&[u8]>,
    ) -> Result<Self, sqlx::Error> {
        let unreadable = |why| sqlx::Error::Decode(Box::new(why));
        let sequence = sequence.unwrap_or(0);
        if sequence > 0 && key_id != key.id() {
            return Err(unreadable(db::Unreadable::Because(
                "the chain of the audit log was made with another key than SIGHTLINE_AUDIT_KEY_FILE gives",
            )));
        }
        let link = match link {
            Some(link) => link
                .try_into()
                .map_err(|_| unreadable(db::Unreadable::Row("chains")))?,
            None => BEGINNING,
        };
        Ok(Self { sequence, link })
    }
}

/// Chains to write, column by column.
#[derive(Default)]
struct Chains {
    log_ids: Vec<i32>,
    sequences: Vec<i64>,
    links: Vec<Vec<u8>>,
}

impl Chains {
    fn add(&mut self, log_id: i32, chain: &Chain) {
        self.log_ids.push(log_id);
        self.sequences.push(chain.sequence);
        self.links.push(chain.link.to_vec());
    }

    async fn write(&self, connection: &mut PgConnection, key: &Key) -> Result<(), sqlx::Error> {
        sqlx::query_file!(
            "src/domains/audit/sql/write_chains.sql",
            &self.log_ids,
            &self.sequences,
            &self.links,
            key.id() as _,
        )
        .execute(connection)
        .await
        .map(drop)
    }
}

impl Audit {
    /// Writes entries and moves the chains of their logs, whose progress rows the transaction holds.
    async fn write(
        &self,
        target: &mut Target<'_>,
        entries: &[NewEntry<'_>],
    ) -> Result<(), sqlx::Error> {
        let key = &self.settings.key;
        let log_ids: HashSet<i32> = entries.iter().map(|entry| entry.new_event.log_id).collect();
        let log_ids: Vec<i32> = log_ids.into_iter().collect();
        let rows = sqlx::query_file!("src/domains/audit/sql/get_chains.sql", &log_ids)
            .fetch_all(&mut *target.connection)
            .await?;
        let mut chains: BTreeMap<i32, (Chain, String, i32)> = BTreeMap::new();
        for row in rows {
            let chain = Chain::read(
                key,
                row.sequence,
                row.link.as_deref(),
                row.key_id.as_deref(),
            )?;
            chains.insert(row.log_id, (chain, row.topic, row.partition));
        }
        let stamps = stamp(target.connection, entries).await?;
        let mut columns = Columns::default();
        for entry in entries {
            let (log_id, offset) = entry.coordinates();
            let chain = chains.get_mut(&log_id);
            let stamp = stamps.get(&(log_id, offset)).cloned();
            let (Some((chain, topic, partition)), Some(stamp)) = (chain, stamp) else {
                return Err(sqlx::Error::RowNotFound);
            };
            columns.add(key, chain, (topic, *partition), entry, stamp)?;
        }
        columns.write(target.connection).await?;
        let mut written = Chains::default();
        for (log_id, (chain, ..)) in &chains {
            written.add(*log_id, chain);
        }
        written.write(target.connection, key).await
    }
}

/// Stamps events, and returns the stamps by coordinates: those that another version has made, if there are any.
async fn stamp(
    connection: &mut PgConnection,
    entries: &[NewEntry<'_>],
) -> Result<HashMap<(i32, i64), Stamp>, sqlx::Error> {
    let (log_ids, offsets): (Vec<i32>, Vec<i64>) =
        entries.iter().map(NewEntry::coordinates).unzip();
    let salts: Vec<Option<Vec<u8>>> = entries
        .iter()
        .map(|entry| new_salts(SALT_BYTES * entry.values().iter().flatten().count()))
        .collect::<Result<_, _>>()?;
    let made = sqlx::query_file!(
        "src/domains/audit/sql/make_stamps.sql",
        &log_ids,
        &offsets,
        &salts as _,
    )
    .fetch_one(&mut *connection)
    .await?;
    let coordinates = log_ids.iter().copied().zip(offsets.iter().copied());
    if usize::try_from(made.count) == Ok(entries.len()) {
        let stamps = salts.into_iter().map(|salts| Stamp {
            recorded_at: made.recorded_at,
            salts,
        });
        return Ok(coordinates.zip(stamps).collect());
    }
    // A statement of its own sees what another transaction has committed meanwhile.
    let rows = sqlx::query_file!("src/domains/audit/sql/get_stamps.sql", &log_ids, &offsets)
        .fetch_all(connection)
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let stamp = Stamp {
                recorded_at: row.recorded_at,
                salts: row.salts,
            };
            ((row.log_id, row.record_offset), stamp)
        })
        .collect())
}

/// Entries to insert, column by column.
#[derive(Default)]
struct Columns<'e> {
    log_ids: Vec<i32>,
    sequences: Vec<i64>,
    actions: Vec<i16>,
    partitions: Vec<i32>,
    offsets: Vec<i64>,
    occurred_at: Vec<DateTime<Utc>>,
    recorded_at: Vec<DateTime<Utc>>,
    event_ids: Vec<&'e str>,
    user_keys: Vec<Option<Uuid>>,
    actor_keys: Vec<Option<Uuid>>,
    role_keys: Vec<Option<Uuid>>,
    permission_keys: Vec<Option<Uuid>>,
    ip_keys: Vec<Option<Uuid>>,
    facts: Vec<&'e str>,
    ip_addresses: Vec<Option<&'e str>>,
    user_agents: Vec<Option<&'e str>>,
    changed_values: Vec<Option<&'e str>>,
    salts: Vec<Option<Vec<u8>>>,
    links: Vec<Vec<u8>>,
}

impl<'e> Columns<'e> {
    /// Adds an entry behind the end of the chain of its log.
    fn add(
        &mut self,
        key: &Key,
        chain: &mut Chain,
        (topic, partition): (&str, i32),
        entry: &'e NewEntry<'_>,
        stamp: Stamp,
    ) -> Result<(), sqlx::Error> {
        let values = entry.values();
        let stamp = stamp.with_salts(values)?;
        let event = &entry.new_event.event;
        let key_of = |id: &Option<String>| id.as_deref().map(key_of);
        let digests = chain::digests(values, stamp.salts.as_deref().unwrap_or_default());
        let chained = Chained {
            topic,
            partition,
            offset: entry.new_event.offset,
            action: entry.action.code,
            occurred_at: event.occurred_at,
            recorded_at: stamp.recorded_at,
            event_id: &event.id,
            user_key: entry.user_key,
            actor_key: key_of(&entry.facts.actor),
            role_key: key_of(&entry.facts.role_id),
            permission_key: key_of(&entry.facts.permission_id),
            facts: &entry.document,
            digests: digests.unwrap_or_default(),
        };
        chain.sequence += 1;
        chain.link = key.link(&chain.link, chain.sequence, &chained);
        self.log_ids.push(entry.new_event.log_id);
        self.sequences.push(chain.sequence);
        self.actions.push(chained.action);
        self.partitions.push(partition);
        self.offsets.push(chained.offset);
        self.occurred_at.push(chained.occurred_at);
        self.recorded_at.push(chained.recorded_at);
        self.event_ids.push(&entry.new_event.event.id);
        self.user_keys.push(chained.user_key);
        self.actor_keys.push(chained.actor_key);
        self.role_keys.push(chained.role_key);
        self.permission_keys.push(chained.permission_key);
        self.ip_keys.push(key_of(&entry.personal.ip_address));
        self.facts.push(&entry.document);
        let [ip_address, user_agent, changed_values] = values;
        self.ip_addresses.push(ip_address);
        self.user_agents.push(user_agent);
        self.changed_values.push(changed_values);
        self.salts.push(stamp.salts);
        self.links.push(chain.link.to_vec());
        Ok(())
    }

    async fn write(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query_file!(
            "src/domains/audit/sql/add_entries.sql",
            &self.log_ids,
            &self.sequences,
            &self.actions,
            &self.partitions,
            &self.offsets,
            &self.occurred_at,
            &self.recorded_at,
            &self.event_ids as _,
            &self.user_keys as _,
            &self.actor_keys as _,
            &self.role_keys as _,
            &self.permission_keys as _,
            &self.ip_keys as _,
            &self.facts as _,
            &self.ip_addresses as _,
            &self.user_agents as _,
            &self.changed_values as _,
            &self.salts as _,
            &self.links,
        )
        .execute(connection)
        .await
        .map(drop)
    }
}
