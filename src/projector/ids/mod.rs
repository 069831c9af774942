//! Remembered event ids, by which a redelivered event is recognized: kept per version of a view and log, written in the
//! batch's transaction, and deleted once no record can repeat them (`judge.rs` has the rule).
//!
//! The ids that a transaction applies are one run: hashes in their order, in blocks of 78 at most, with a Bloom filter. A
//! partition's owner keeps the filters of its log's runs in memory. Nearly every id is new, and the filters say so without
//! the database; only where one says "perhaps", the block is read in which the id would be. [`maintenance`] merges runs, so
//! that there are few, and deletes a run when all its ids have expired. A run never changes, and its number is random, so
//! filters that were read before a merge, or before the database was restored, name runs that are not found any longer: then
//! the log's runs are read again.

pub mod maintenance;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

/// How many ids a block holds at most: four such rows fill a page.
const BLOCK: usize = 78;
/// The bytes of an id in a block: a hash, an offset and a time.
const ENTRY: usize = HASH + OFFSET + TIME;
/// The bytes of a hash that are kept, of 16. At a billion ids the probability that any two are equal is about 10⁻¹¹.
const HASH: usize = 12;
const OFFSET: usize = 6;
/// In milliseconds since 1970.
const TIME: usize = 7;

/// The bits of a filter per id, and how many of them an id sets: of new ids 0.3 % look as if they were in a run.
const FILTER_BITS: usize = 12;
const FILTER_PROBES: u64 = 8;
/// A log has many runs of one block, all of which are asked for each new id, so their filters have more bits per id, and so
/// many bytes at least: in a few bytes different ids set the same bits.
const BLOCK_FILTER_BITS: usize = 32;
const LEAST_FILTER: usize = 64;

/// After so many runs of its own, an owner reads the log's runs again, which were merged meanwhile.
const UNMERGED: usize = 64;

/// How many blocks a statement reads at most: some megabytes.
const MOST_BLOCKS: usize = 4_096;
/// How many filters of a log are read at a time by a process that does not own it.
const FILTERS: usize = 50;

/// An event id is remembered for at least so many offsets, however much stream time passes.
pub const DEDUPE_OFFSETS: i64 = 100_000;

/// An application of an event id, by which later records with the id are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenEvent {
    /// The offset of the record that was applied.
    pub offset: i64,
    /// The later of the record's Kafka timestamp and the stream time after it.
    pub applied_time: DateTime<Utc>,
}

/// A run of ids, as its log's owner knows it.
#[derive(Debug, Clone)]
pub struct Run {
    number: i64,
    /// An empty one holds every id.
    filter: Arc<[u8]>,
}

/// All runs of a log.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    runs: Vec<Run>,
    /// How many of them were read from the database.
    read: usize,
}

impl Runs {
    /// Reads the runs of logs, one answer per log, in their order: without the filters of runs that `former` has. Called in a
    /// transaction that holds the logs' progress rows.
    ///
    /// # Errors
    /// The database failed.
    pub async fn read(
        connection: &mut PgConnection,
        log_ids: &[i32],
        former: &[&Runs],
    ) -> Result<Vec<Self>, sqlx::Error> {
        let former = former.iter().flat_map(|runs| &runs.runs);
        let known: HashMap<i64, &Run> = former.map(|run| (run.number, run)).collect();
        let numbers: Vec<i64> = known.keys().copied().collect();
        let rows = sqlx::query_file!("src/projector/sql/id_runs.sql", log_ids, &numbers)
            .fetch_all(connection)
            .await?;
        let mut by_log: HashMap<i32, Self> = HashMap::new();
        for row in rows {
            let run = match known.get(&row.run) {
                Some(run) => (*run).clone(),
                None => Run {
                    number: row.run,
                    filter: row.filter.unwrap_or_default().into(),
                },
            };
            let runs = by_log.entry(row.log_id).or_default();
            runs.runs.push(run);
            runs.read += 1;
        }
        let log_ids = log_ids.iter();
        Ok(log_ids
            .map(|log_id| by_log.remove(log_id).unwrap_or_default())
            .collect())
    }

    /// Reads which runs of a log may hold one of some ids, for a look-up of these alone: the filters themselves may be more than a
    /// process should hold that does not own the log.
    ///
    /// # Errors
    /// The database failed.
    pub async fn that_may_hold(
        connection: &mut PgConnection,
        log_id: i32,
        hashes: &[Uuid],
    ) -> Result<Self, sqlx::Error> {
        let numbers =
            sqlx::query_scalar!("SELECT run FROM event_id_runs WHERE log_id = $1", log_id)
                .fetch_all(&mut *connection)
                .await?;
        let mut filters: HashMap<i64, Arc<[u8]>> = HashMap::new();
        // Of few ids the blocks are less to read than the filters.
        if numbers.len() * hashes.len() > MOST_BLOCKS {
            for some in numbers.chunks(FILTERS) {
                let rows = sqlx::query!(
                    "SELECT run, filter FROM event_id_runs WHERE log_id = $1 AND run = ANY ($2)",
                    log_id,
                    some
                )
                .fetch_all(&mut *connection)
                .await?;
                for row in rows {
                    let held = hashes.iter().copied();
                    let held = held.filter(|hash| may_hold(&row.filter, *hash));
                    filters.insert(row.run, filter_of(held.collect()));
                }
            }
        }
        // One that was merged meanwhile is asked for, and not found.
        let runs = numbers.into_iter().map(|number| Run {
            number,
            filter: filters.remove(&number).unwrap_or_default(),
        });
        let runs: Vec<Run> = runs.collect();
        let read = runs.len();
        Ok(Self { runs, read })
    }

    /// Whether they were read from the database later than these, as far as their counts show.
    pub fn were_read_after(&self, former: &Self) -> bool {
        self.read != former.read
    }

    /// Adds the run that the owner's transaction has committed.
    pub fn add(&mut self, run: Run) {
        self.runs.push(run);
    }

    /// The runs that may hold an id.
    fn perhaps_with(&self, hash: Uuid) -> impl Iterator<Item = i64> {
        let runs = self.runs.iter();
        runs.filter(move |run| may_hold(&run.filter, hash))
            .map(|run| run.number)
    }
}

/// A log, its runs, and the ids that are looked up in it.
pub struct Asked<'a> {
    /// The log.
    pub log_id: i32,
    /// Its runs, as its owner knows them.
    pub runs: &'a Runs,
    /// The ids' hashes.
    pub hashes: Vec<Uuid>,
}

impl Asked<'_> {
    /// Whether the filters alone say that all of the ids are new. If so, [`seen`] would find none, and read nothing.
    pub fn are_new(&self) -> bool {
        let may_be_known = |hash: &Uuid| self.runs.perhaps_with(*hash).next().is_some();
        !self.has_unmerged_runs() && !self.hashes.iter().any(may_be_known)
    }

    /// Whether the log's runs are to be read again.
    fn has_unmerged_runs(&self) -> bool {
        self.runs.runs.len() > self.runs.read + UNMERGED
    }
}

/// What was found in a log.
#[derive(Debug, Default)]
pub struct Found {
    /// The ids that were applied before, by hash.
    pub seen: HashMap<Uuid, SeenEvent>,
    /// The log's runs, if they had to be read again.
    pub runs: Option<Runs>,
}

/// Which ids were applied before from their logs: one answer per log, in their order. Called in a transaction that holds the
/// progress rows.
///
/// # Errors
/// The database failed.
pub async fn seen(
    connection: &mut PgConnection,
    asked: &[Asked<'_>],
) -> Result<Vec<Found>, sqlx::Error> {
    let mut found: Vec<Found> = asked.iter().map(|_| Found::default()).collect();
    let unmerged: Vec<usize> = (0..asked.len())
        .filter(|index| asked[*index].has_unmerged_runs())
        .collect();
    read_again(connection, asked, &mut found, &unmerged).await?;
    let mut left: Vec<usize> = (0..asked.len()).collect();
    while !left.is_empty() {
        // The index of the log, a run that may hold an id, and the id.
        let mut perhaps: Vec<(usize, i64, Uuid)> = Vec::new();
        for index in left.drain(..) {
            let one = &asked[index];
            let known = found[index].runs.as_ref().unwrap_or(one.runs);
            for hash in &one.hashes {
                perhaps.extend(known.perhaps_with(*hash).map(|run| (index, run, *hash)));
            }
        }
        for some in perhaps.chunks(MOST_BLOCKS) {
            let log_ids = some.iter().map(|(index, ..)| asked[*index].log_id);
            let log_ids: Vec<i32> = log_ids.collect();
            let runs: Vec<i64> = some.iter().map(|(_, run, _)| *run).collect();
            let hashes: Vec<Uuid> = some.iter().map(|(.., hash)| *hash).collect();
            let blocks =
                sqlx::query_file!("src/projector/sql/id_blocks.sql", &log_ids, &runs, &hashes)
                    .fetch_all(&mut *connection)
                    .await?;
            for row in blocks {
                let number = usize::try_from(row.number - 1).unwrap_or(usize::MAX);
                let Some((index, _, hash)) = some.get(number) else {
                    continue;
                };
                // Maintenance has merged the run, or all its ids have expired.
                if !row.exists && !left.contains(index) {
                    left.push(*index);
                }
                if let Some(event) = row.ids.and_then(|block| find(&block, *hash)) {
                    let seen = found[*index].seen.entry(*hash).or_insert(event);
                    if seen.offset < event.offset {
                        *seen = event;
                    }
                }
            }
        }
        read_again(connection, asked, &mut found, &left).await?;
    }
    Ok(found)
}

/// Reads the runs of some logs again.
async fn read_again(
    connection: &mut PgConnection,
    asked: &[Asked<'_>],
    found: &mut [Found],
    indexes: &[usize],
) -> Result<(), sqlx::Error> {
    if indexes.is_empty() {
        return Ok(());
    }
    let log_ids: Vec<i32> = indexes.iter().map(|index| asked[*index].log_id).collect();
    let former = indexes.iter().map(|index| {
        let read = found[*index].runs.as_ref();
        read.unwrap_or(asked[*index].runs)
    });
    let former: Vec<&Runs> = former.collect();
    let runs = Runs::read(connection, &log_ids, &former).await?;
    for (index, runs) in indexes.iter().zip(runs) {
        found[*index].runs = Some(runs);
    }
    Ok(())
}

/// Remembers the ids that a transaction applies, by log. Returns the run of each log that has some: its owner adds it once the
/// transaction is committed.
///
/// # Errors
/// The database failed.
pub async fn remember<'a>(
    connection: &mut PgConnection,
    applied: impl IntoIterator<Item = (i32, &'a BTreeMap<Uuid, SeenEvent>)>,
) -> Result<Vec<(i32, Run)>, sqlx::Error> {
    let applied = applied.into_iter().filter(|(_, ids)| !ids.is_empty());
    let runs: Vec<(i32, NewRun)> = applied
        .map(|(log_id, ids)| {
            let entries = ids.iter().map(|(hash, event)| entry(*hash, event));
            (log_id, NewRun::of(entries.collect()))
        })
        .collect();
    write(connection, &runs).await?;
    let runs = runs.into_iter();
    Ok(runs.map(|(log_id, run)| (log_id, run.run)).collect())
}

/// A run that is to be written.
struct NewRun {
    run: Run,
    /// Sorted by their hashes.
    entries: Vec<[u8; ENTRY]>,
    last_offset: i64,
    last_time: DateTime<Utc>,
}

impl NewRun {
    /// The run of these ids, which are sorted.
    fn of(entries: Vec<[u8; ENTRY]>) -> Self {
        let mut last = SeenEvent {
            offset: 0,
            applied_time: DateTime::UNIX_EPOCH,
        };
        for entry in &entries {
            let event = event_of(entry);
            last.offset = last.offset.max(event.offset);
            last.applied_time = last.applied_time.max(event.applied_time);
        }
        Self {
            run: Run {
                number: fastrand::i64(1..),
                filter: filter_of(entries.iter().map(|entry| hash_of(entry)).collect()),
            },
            entries,
            last_offset: last.offset,
            last_time: last.applied_time,
        }
    }
}

async fn write(connection: &mut PgConnection, runs: &[(i32, NewRun)]) -> Result<(), sqlx::Error> {
    if runs.is_empty() {
        return Ok(());
    }
    let (mut log_ids, mut numbers, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    let (mut last_offsets, mut last_times) = (Vec::new(), Vec::new());
    let (mut filters, mut only_blocks) = (Vec::new(), Vec::new());
    let (mut block_logs, mut block_runs) = (Vec::new(), Vec::new());
    let (mut first_hashes, mut blocks) = (Vec::new(), Vec::new());
    for (log_id, new) in runs {
        log_ids.push(*log_id);
        numbers.push(new.run.number);
        counts.push(i32::try_from(new.entries.len()).unwrap_or(i32::MAX));
        last_offsets.push(new.last_offset);
        last_times.push(new.last_time);
        filters.push(&*new.run.filter);
        // One block stands in the row of its run.
        let is_one = new.entries.len() <= BLOCK;
        only_blocks.push(is_one.then(|| new.entries.concat()));
        for block in new.entries.chunks(BLOCK).filter(|_| !is_one) {
            block_logs.push(*log_id);
            block_runs.push(new.run.number);
            first_hashes.push(hash_of(&block[0]));
            blocks.push(block.concat());
        }
    }
    sqlx::query_file!(
        "src/projector/sql/add_id_runs.sql",
        &log_ids,
        &numbers,
        &counts,
        &last_offsets,
        &last_times,
        &filters as _,
        &only_blocks as _
    )
    .execute(&mut *connection)
    .await?;
    if !blocks.is_empty() {
        sqlx::query_file!(
            "src/projector/sql/add_id_blocks.sql",
            &block_logs,
            &block_runs,
            &first_hashes,
            &blocks
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// An id as a block holds it: any offset up to 2⁴⁸, and any time since 1970 that a `DateTime` can have.
fn entry(hash: Uuid, event: &SeenEvent) -> [u8; ENTRY] {
    let offset = event.offset.clamp(0, (1 << (8 * OFFSET)) - 1);
    let time = event.applied_time.timestamp_millis();
    let time = time.clamp(0, (1 << (8 * TIME)) - 1);
    let mut entry = [0; ENTRY];
    entry[..HASH].copy_from_slice(&hash.as_bytes()[..HASH]);
    entry[HASH..HASH + OFFSET].copy_from_slice(&offset.to_be_bytes()[8 - OFFSET..]);
    entry[HASH + OFFSET..].copy_from_slice(&time.to_be_bytes()[8 - TIME..]);
    entry
}

/// The hash of an entry, as far as it is kept.
fn hash_of(entry: &[u8]) -> Uuid {
    let mut hash = [0; 16];
    hash[..HASH].copy_from_slice(&entry[..HASH]);
    Uuid::from_bytes(hash)
}

fn event_of(entry: &[u8]) -> SeenEvent {
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |number, byte| number << 8 | i64::from(*byte))
    };
    let time = number(&entry[HASH + OFFSET..ENTRY]);
    SeenEvent {
        offset: number(&entry[HASH..HASH + OFFSET]),
        applied_time: DateTime::from_timestamp_millis(time).unwrap_or(DateTime::<Utc>::MAX_UTC),
    }
}

/// The last application of an id in a block of a run, if the block holds it.
pub fn find(block: &[u8], hash: Uuid) -> Option<SeenEvent> {
    let (entries, _) = block.as_chunks::<ENTRY>();
    let kept = &hash.as_bytes()[..HASH];
    let first = entries.partition_point(|entry| &entry[..HASH] < kept);
    let equal = entries[first..]
        .iter()
        .take_while(|entry| &entry[..HASH] == kept);
    equal
        .map(|entry| event_of(entry))
        .max_by_key(|event| event.offset)
}

/// The bits of a filter of so many bytes that an id sets. A hash is as good as random, so its halves are two hashes (Kirsch and
/// Mitzenmacher, "Less Hashing, Same Performance").
fn bits(hash: Uuid, bytes: usize) -> impl Iterator<Item = usize> {
    let hash = hash.as_u128();
    // Of 96 bits the first 64, and the last 32.
    let (start, step) = ((hash >> 64) as u64, (hash >> 32) as u32);
    let count = bytes as u64 * 8;
    (0..FILTER_PROBES)
        .map(move |n| (start.wrapping_add(n.wrapping_mul(u64::from(step) | 1)) % count) as usize)
}

/// A Bloom filter of ids.
fn filter_of(hashes: Vec<Uuid>) -> Arc<[u8]> {
    let bytes = |bits: usize| (hashes.len() * bits).div_ceil(8);
    let mut filter = if hashes.len() <= BLOCK {
        vec![0; bytes(BLOCK_FILTER_BITS).max(LEAST_FILTER)]
    } else {
        vec![0; bytes(FILTER_BITS)]
    };
    for hash in hashes {
        for bit in bits(hash, filter.len()) {
            filter[bit / 8] |= 1 << (bit % 8);
        }
    }
    filter.into()
}

fn may_hold(filter: &[u8], hash: Uuid) -> bool {
    filter.is_empty() || bits(hash, filter.len()).all(|bit| filter[bit / 8] & (1 << (bit % 8)) != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(offset: i64, millis: i64) -> SeenEvent {
        SeenEvent {
            offset,
            applied_time: DateTime::from_timestamp_millis(millis).expect("a time"),
        }
    }

    fn run_of(events: &BTreeMap<Uuid, SeenEvent>) -> NewRun {
        let entries = events.iter().map(|(hash, event)| entry(*hash, event));
        NewRun::of(entries.collect())
    }

    proptest! {
        #[test]
        fn a_run_finds_its_ids_and_no_others(
            applied in prop::collection::btree_map(any::<u128>(), (0..1_i64 << 48, 0..8_000_000_000_000_000_i64), 1..400),
            others in prop::collection::vec(any::<u128>(), 50),
        ) {
            let hash = Uuid::from_u128;
            let applied: BTreeMap<Uuid, SeenEvent> =
                applied.into_iter().map(|(id, (offset, millis))| (hash(id), event(offset, millis))).collect();
            let run = run_of(&applied);
            for (id, event) in &applied {
                prop_assert!(may_hold(&run.run.filter, *id));
                prop_assert_eq!(find(&run.entries.concat(), *id), Some(*event));
            }
            for id in others.into_iter().map(hash) {
                prop_assert_eq!(find(&run.entries.concat(), id), applied.get(&id).copied());
            }
            prop_assert_eq!(Some(run.last_offset), applied.values().map(|event| event.offset).max());
            prop_assert_eq!(Some(run.last_time), applied.values().map(|event| event.applied_time).max());
        }
    }

    #[test]
    fn few_new_ids_look_as_if_they_were_in_a_run() {
        let id = |n: u64| crate::event::hash16(&n.to_be_bytes());
        let applied = (0..10_000).map(|n| (id(n), event(0, 0))).collect();
        let run = run_of(&applied);
        let others = (10_000..110_000).filter(|n| may_hold(&run.run.filter, id(*n)));
        let share = others.count() as f64 / 100_000.0;
        assert!((0.002..0.005).contains(&share), "{share}");
    }

    /// As many as a log may have before they are merged.
    #[test]
    fn hardly_any_new_id_looks_as_if_it_were_in_one_of_many_small_runs() {
        let id = |n: u64| crate::event::hash16(&n.to_be_bytes());
        for size in [1, 5, 20, 78] {
            let runs: Vec<NewRun> = (0..100)
                .map(|run| {
                    let ids = (0..size).map(|n| (id(run * size + n), event(0, 0)));
                    run_of(&ids.collect())
                })
                .collect();
            let others = (10_000..20_000).filter(|n| {
                let mut runs = runs.iter();
                runs.any(|run| may_hold(&run.run.filter, id(*n)))
            });
            let share = others.count() as f64 / 10_000.0;
            assert!(share < 0.04, "{share} of runs of {size}");
        }
    }

    #[test]
    fn of_two_applications_of_an_id_the_later_one_counts() {
        let id = Uuid::from_u128(7 << 64);
        let both = [event(3, 30), event(9, 20)].map(|event| entry(id, &event));
        assert_eq!(find(&both.concat(), id), Some(event(9, 20)));
    }

    #[test]
    fn a_stored_id_has_a_fixed_form() {
        let id = Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        let entry = entry(id, &event(0x0102_0304_0506, 0x0a_0b0c_0d0e_0f10));
        let expected = "00112233445566778899aabb0102030405060a0b0c0d0e0f10";
        let hex: String = entry.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
        let bits: Vec<usize> = bits(id, 100).collect();
        assert_eq!(bits, [311, 402, 493, 584, 675, 766, 57, 148]);
    }
}
