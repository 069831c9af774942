//! The model's state: the database, the memory of owners and operators, and what properties record.

use std::fmt;

use crate::transactions::Release;

/// The number of versions of the view.
pub const VERSIONS: usize = 2;
/// The most partitions of the topic.
pub const LOGS: usize = 2;
/// The most records of a partition.
pub const RECORDS: usize = 5;
/// The most owners.
pub const OWNERS: usize = 6;
/// The most operators. Automatic retries of a process count as one.
pub const OPERATORS: usize = 2;

/// A set of small numbers: versions, keys, ids or offsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Set(u8);

impl Set {
    /// Whether the set contains a number.
    pub fn has(self, number: u8) -> bool {
        self.0 & (1 << number) != 0
    }

    /// Adds a number.
    pub fn add(&mut self, number: u8) {
        self.0 |= 1 << number;
    }

    /// Removes a number.
    pub fn take(&mut self, number: u8) {
        self.0 &= !(1 << number);
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The lowest number.
    pub fn first(self) -> Option<u8> {
        self.iter().next()
    }

    /// The numbers, in ascending order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..8).filter(move |number| self.has(*number))
    }
}

impl FromIterator<u8> for Set {
    fn from_iter<I: IntoIterator<Item = u8>>(numbers: I) -> Self {
        let mut set = Set::default();
        for number in numbers {
            set.add(number);
        }
        set
    }
}

/// The rows of one partition in a version's tables: the offsets of the applied records, in the order of
/// application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rows {
    length: u8,
    offsets: [u8; Self::CAPACITY],
}

impl Rows {
    /// Two more than there are records, which is enough to show that one was applied twice.
    const CAPACITY: usize = RECORDS + 2;

    /// Applies a record.
    pub fn add(&mut self, offset: u8) {
        if let Some(end) = self.offsets.get_mut(usize::from(self.length)) {
            *end = offset;
            self.length += 1;
        }
    }

    /// The offsets, in the order of application.
    pub fn offsets(&self) -> &[u8] {
        &self.offsets[..usize::from(self.length)]
    }

    /// Whether a record was applied.
    pub fn has(&self, offset: u8) -> bool {
        self.offsets().contains(&offset)
    }
}

/// The name of a schema. A switch changes which tables it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Name {
    /// `<domain>_live`.
    #[default]
    Live,
    /// `<domain>_v<version>`.
    Own(u8),
}

impl Name {
    /// The index of the name in [`State::names`].
    pub fn index(self) -> usize {
        match self {
            Name::Live => 0,
            Name::Own(version) => 1 + usize::from(version),
        }
    }
}

/// A dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeadLetter {
    /// Open: the record itself failed.
    Failed,
    /// Open: it waits behind an earlier dead letter of its key (class `blocked`).
    Blocked,
    /// A retry applied it.
    Applied,
    /// A retry found that its event was applied already.
    Duplicate,
    /// An operator discarded it.
    Discarded,
    /// A later deletion of its user closed it.
    Closed,
}

impl DeadLetter {
    /// Whether it is open, so that its key is parked.
    pub fn is_open(self) -> bool {
        matches!(self, DeadLetter::Failed | DeadLetter::Blocked)
    }
}

/// The dead letters of a partition by offset, or changes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeadLetters([Option<DeadLetter>; RECORDS]);

impl DeadLetters {
    /// The dead letter of a record, if it has one.
    pub fn get(&self, offset: u8) -> Option<DeadLetter> {
        self.0[usize::from(offset)]
    }

    /// Sets a record's dead letter.
    pub fn set(&mut self, offset: u8, letter: DeadLetter) {
        self.0[usize::from(offset)] = Some(letter);
    }

    /// Applies changes.
    pub fn change(&mut self, changes: &DeadLetters) {
        for (letter, change) in self.0.iter_mut().zip(changes.0) {
            *letter = change.or(*letter);
        }
    }

    /// All dead letters, with their offsets.
    pub fn iter(&self) -> impl Iterator<Item = (u8, DeadLetter)> {
        (0..)
            .zip(self.0)
            .filter_map(|(offset, letter)| Some((offset, letter?)))
    }

    /// The offsets of the open dead letters.
    pub fn open(&self) -> impl Iterator<Item = u8> + use<> {
        let letters = *self;
        (0..RECORDS as u8).filter(move |offset| letters.is_open(*offset))
    }

    /// Whether a record has an open dead letter.
    pub fn is_open(&self, offset: u8) -> bool {
        self.get(offset).is_some_and(DeadLetter::is_open)
    }
}

/// The state of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ViewState {
    /// The version does not exist.
    #[default]
    Absent,
    /// Readers read this version.
    Live,
    /// The version is being built while another one is live.
    Building,
    /// The version was live before a switch.
    Retired,
}

/// A progress row, and the dead letters of its partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Progress {
    /// Raised by each transaction that changes what the owner may assume.
    pub epoch: u8,
    /// The next offset to apply.
    pub next: u8,
    /// The dead letters.
    pub letters: DeadLetters,
    /// The newest code that has folded here. Set only if [`Scope::codes`](crate::Scope::codes).
    pub code: Release,
}

/// A version of the view, as the schema `sightline` describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct View {
    /// The version's state.
    pub standing: ViewState,
    /// The schema that holds its tables.
    pub schema: Name,
    /// Whether an operator paused it.
    pub paused: bool,
    /// The code that began it. Set only if [`Scope::codes`](crate::Scope::codes).
    pub code: Release,
    /// Whether an operator let older code fold it, so that it shows as outdated.
    pub accepts_older: bool,
    /// Its progress in each partition.
    pub progress: [Progress; LOGS],
}

impl View {
    /// Whether the version exists.
    pub fn exists(&self) -> bool {
        self.standing != ViewState::Absent
    }
}

/// A claimed partition: what its owner read when it claimed it, valid until the epoch is raised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The epoch to which the claim raised the row's.
    pub epoch: u8,
    /// The next offset to apply.
    pub next: u8,
    /// The schema of its version.
    pub schema: Name,
    /// The keys with open dead letters.
    pub parked: Set,
    /// The discarded records.
    pub discarded: Set,
    /// The ids of applied events.
    pub ids: Set,
    /// The owner's code. Set only if [`Scope::codes`](crate::Scope::codes).
    pub code: Release,
}

/// The uncommitted changes of a transaction in one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Changes {
    /// The version whose tables the schema named when the transaction wrote.
    pub tables: u8,
    /// The records applied to those tables.
    pub rows: Rows,
    /// The dead letters that are added or changed.
    pub letters: DeadLetters,
    /// The code that folded. Set only if [`Scope::codes`](crate::Scope::codes).
    pub code: Release,
}

/// An owner's batch in a writer's transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Batch {
    /// The owner's claim when the transaction began.
    pub claim: Claim,
    /// The number of its records.
    pub count: u8,
    /// The schema that the transaction writes to.
    pub schema: Name,
    /// The owners whose batches the transaction writes, this one included.
    pub owners: Set,
}

/// A process that projects a partition of a version. Several may believe that they own it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Has no claim and no transaction.
    #[default]
    Idle,
    /// Has read, without the lock on the row, what it should read under it.
    HasRead(Claim),
    /// Has claimed the partition. It does not know whether the claim is still valid.
    Claimed(Claim),
    /// A transaction has compared and locked the row for the owner's batch.
    Begun(Batch),
    /// The transaction has written the batch, with the keys that are parked after it.
    Written(Batch, Set, Changes),
}

impl Owner {
    /// The batch that a transaction holds.
    pub fn batch(&self) -> Option<Batch> {
        match *self {
            Owner::Idle | Owner::HasRead(_) | Owner::Claimed(_) => None,
            Owner::Begun(batch) | Owner::Written(batch, ..) => Some(batch),
        }
    }
}

/// An operation on dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Retries a key's dead letters from an offset on.
    Retry {
        /// Of this version.
        version: u8,
        /// In this partition.
        log: u8,
        /// The key.
        key: u8,
        /// All dead letters of the key below this offset were retried.
        from: u8,
        /// Whether one of those failed again.
        failed: bool,
    },
    /// Discards a dead letter.
    Discard {
        /// Of this version.
        version: u8,
        /// In this partition.
        log: u8,
        /// The dead letter's record.
        offset: u8,
        /// The other versions with a dead letter for the record; `None` before the look-up.
        others: Option<Set>,
    },
}

impl Operation {
    /// The version that it concerns.
    pub fn version(self) -> u8 {
        match self {
            Operation::Retry { version, .. } | Operation::Discard { version, .. } => version,
        }
    }

    /// The partition that it concerns.
    pub fn log(self) -> u8 {
        match self {
            Operation::Retry { log, .. } | Operation::Discard { log, .. } => log,
        }
    }
}

/// An operator, or a process that retries by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Operator {
    /// Has no operation.
    #[default]
    Idle,
    /// Has an operation, but no transaction yet.
    About(Operation),
    /// Has written its changes in a transaction that locks the partition's progress rows.
    Done {
        /// The operation.
        operation: Operation,
        /// The versions whose rows the transaction locks.
        rows: Set,
        /// The uncommitted changes of each version.
        changes: [Option<Changes>; VERSIONS],
        /// The operation to do next, in a transaction of its own.
        then: Option<Operation>,
    },
}

/// The whole state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// The versions.
    pub views: [View; VERSIONS],
    /// The version whose tables each schema name leads to.
    pub names: [Option<u8>; 1 + VERSIONS],
    /// The tables, by the version for which they were created.
    pub tables: [[Rows; LOGS]; VERSIONS],
    /// The newest code that wrote each partition's rows.
    pub folded_by: [[Release; LOGS]; VERSIONS],
    /// The stored discards, by the coordinates of their records.
    pub discards: [Set; LOGS],
    /// The owners.
    pub owners: [Owner; OWNERS],
    /// The operators.
    pub operators: [Operator; OPERATORS],
    /// Whether a switch is in progress that has checked the positions without locks.
    pub switching: bool,
    /// The highest position of the live version that a reader may have seen.
    pub shown: [u8; LOGS],
    /// The discarded records, whether or not the discard was stored.
    pub taken_out: [Set; LOGS],
    /// The version whose tables a read has found, before it has found the position.
    pub reading: Option<u8>,
    /// A record was applied after an operator had discarded it.
    pub discard_broken: bool,
    /// Older code folded what newer code had folded or begun.
    pub fold_broken: bool,
    /// A paused version advanced.
    pub pause_broken: bool,
    /// An answer combined the rows of one version with the position of another.
    pub read_broken: bool,
    /// The comparison rejected an owner. Set only if [`Scope::remembers`](crate::Scope::remembers).
    pub turned_away: bool,
    /// A transaction went on without an owner that the comparison rejected. Set only if
    /// [`Scope::remembers`](crate::Scope::remembers).
    pub partly_fenced: bool,
    /// The answer to a COMMIT was lost. Set only if [`Scope::remembers`](crate::Scope::remembers).
    pub unanswered: bool,
}

impl State {
    /// The versions that exist.
    pub fn versions(&self) -> impl Iterator<Item = u8> {
        (0..VERSIONS as u8).filter(|version| self.view(*version).exists())
    }

    /// A version.
    pub fn view(&self, version: u8) -> &View {
        &self.views[usize::from(version)]
    }

    /// A version, mutably.
    pub fn view_mut(&mut self, version: u8) -> &mut View {
        &mut self.views[usize::from(version)]
    }

    /// A progress row.
    pub fn row(&self, version: u8, log: u8) -> &Progress {
        &self.view(version).progress[usize::from(log)]
    }

    /// A progress row, mutably.
    pub fn row_mut(&mut self, version: u8, log: u8) -> &mut Progress {
        &mut self.view_mut(version).progress[usize::from(log)]
    }

    /// The version whose tables a schema name leads to.
    pub fn tables_of(&self, schema: Name) -> Option<u8> {
        self.names[schema.index()]
    }

    /// Whether a version has an open dead letter for a record.
    pub fn is_open(&self, version: u8, log: u8, offset: u8) -> bool {
        self.row(version, log).letters.is_open(offset)
    }
}

/// The name of a version in descriptions.
pub fn version_name(version: u8) -> String {
    format!("v{}", version + 1)
}

/// The name of an owner in descriptions.
pub fn owner_name(owner: usize) -> char {
    ['A', 'B', 'C', 'D', 'E', 'F'][owner]
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Live => f.write_str("live"),
            Name::Own(version) => f.write_str(&version_name(*version)),
        }
    }
}

/// The versions, positions, rows and dead letters, on one line.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (version, view) in (0..).zip(&self.views).filter(|(_, view)| view.exists()) {
            let standing = format!("{:?}", view.standing).to_lowercase();
            write!(f, "{separator}{} {standing}", version_name(version))?;
            separator = "   ";
            if view.paused {
                f.write_str(" paused")?;
            }
            for (log, progress) in view.progress.iter().enumerate() {
                let rows = self.tables[usize::from(version)][log].offsets();
                if log > 0 && rows.is_empty() && progress.next == 0 {
                    continue;
                }
                write!(f, " [at {}, rows {rows:?}", progress.next)?;
                for (offset, letter) in progress.letters.iter() {
                    write!(f, ", {offset} {}", format!("{letter:?}").to_lowercase())?;
                }
                f.write_str("]")?;
            }
        }
        Ok(())
    }
}
