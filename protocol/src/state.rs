//! What there is at a moment: in Postgres, in the memory of those who project, and what properties remember.

use std::fmt;

/// How many versions of the view there may be at a time.
pub const VERSIONS: usize = 2;
/// How many partitions the topic has at most.
pub const LOGS: usize = 2;
/// How many records a partition has at most.
pub const RECORDS: usize = 5;
/// How many owners there are at most.
pub const OWNERS: usize = 4;
/// How many look after letters at most: an operator, and a process that retries by itself.
pub const OPERATORS: usize = 2;

/// Small numbers: versions, keys, ids or offsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Set(u8);

impl Set {
    /// Whether a number is in it.
    pub fn has(self, number: u8) -> bool {
        self.0 & (1 << number) != 0
    }

    /// Adds a number.
    pub fn add(&mut self, number: u8) {
        self.0 |= 1 << number;
    }

    /// Takes a number out.
    pub fn take(&mut self, number: u8) {
        self.0 &= !(1 << number);
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in it, the smallest first.
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

/// The rows of one partition in a version's tables: the records whose events were applied, in that order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rows {
    length: u8,
    offsets: [u8; Self::CAPACITY],
}

impl Rows {
    /// Enough to show that a record is there twice, which is all that has to be shown of it.
    const CAPACITY: usize = RECORDS + 2;

    /// Applies a record.
    pub fn add(&mut self, offset: u8) {
        if let Some(end) = self.offsets.get_mut(usize::from(self.length)) {
            *end = offset;
            self.length += 1;
        }
    }

    /// The records' offsets, in the order in which they were applied.
    pub fn offsets(&self) -> &[u8] {
        &self.offsets[..usize::from(self.length)]
    }

    /// Whether a record was applied.
    pub fn has(&self, offset: u8) -> bool {
        self.offsets().contains(&offset)
    }
}

/// A name that a schema may have. What it leads to changes with a switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Name {
    /// `<domain>_live`.
    #[default]
    Live,
    /// `<domain>_v<version>`.
    Own(u8),
}

impl Name {
    /// Its place among the names.
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
    /// Open: it waits behind an earlier letter of its key.
    Blocked,
    /// A retry applied it.
    Applied,
    /// A retry found its event applied already.
    Duplicate,
    /// An operator took it out.
    Discarded,
    /// Its user was deleted later.
    Closed,
}

impl DeadLetter {
    /// Whether its key is parked because of it.
    pub fn is_open(self) -> bool {
        matches!(self, DeadLetter::Failed | DeadLetter::Blocked)
    }
}

/// The letters of a partition, by their records' offsets; or those of them that are to change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeadLetters([Option<DeadLetter>; RECORDS]);

impl DeadLetters {
    /// The letter of a record, if it has one.
    pub fn get(&self, offset: u8) -> Option<DeadLetter> {
        self.0[usize::from(offset)]
    }

    /// Sets a record's letter.
    pub fn set(&mut self, offset: u8, letter: DeadLetter) {
        self.0[usize::from(offset)] = Some(letter);
    }

    /// Sets those that others say.
    pub fn change(&mut self, changes: &DeadLetters) {
        for (letter, change) in self.0.iter_mut().zip(changes.0) {
            *letter = change.or(*letter);
        }
    }

    /// All that there are.
    pub fn iter(&self) -> impl Iterator<Item = (u8, DeadLetter)> {
        (0..)
            .zip(self.0)
            .filter_map(|(offset, letter)| Some((offset, letter?)))
    }

    /// The records with an open letter.
    pub fn open(&self) -> impl Iterator<Item = u8> + use<> {
        let letters = *self;
        (0..RECORDS as u8).filter(move |offset| letters.is_open(*offset))
    }

    /// Whether a record has an open letter.
    pub fn is_open(&self, offset: u8) -> bool {
        self.get(offset).is_some_and(DeadLetter::is_open)
    }
}

/// What a version is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ViewState {
    /// Not there.
    #[default]
    Absent,
    /// The one that is read.
    Live,
    /// Being built beside the live one.
    Building,
    /// Was the live one.
    Retired,
}

/// A progress row, and the letters that go with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Progress {
    /// Raised by whoever changes what the owner may assume.
    pub epoch: u8,
    /// The next offset to apply.
    pub next: u8,
    /// The letters.
    pub letters: DeadLetters,
}

/// A version of the view, as the schema that no rebuild touches has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct View {
    /// What it is.
    pub standing: ViewState,
    /// The schema that holds its tables.
    pub schema: Name,
    /// Whether it stands still on purpose.
    pub paused: bool,
    /// How far it has come in each partition.
    pub progress: [Progress; LOGS],
}

impl View {
    /// Whether it is there.
    pub fn exists(&self) -> bool {
        self.standing != ViewState::Absent
    }
}

/// What an owner knows since it took a partition over, and believes for as long as nobody raises the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The epoch that it raised the row's to.
    pub epoch: u8,
    /// Where it goes on.
    pub next: u8,
    /// The schema of its version.
    pub schema: Name,
    /// The keys that have open letters.
    pub parked: Set,
    /// The records that an operator took out.
    pub discarded: Set,
}

/// What a transaction has written of one partition and not committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Changes {
    /// Whose tables the schema's name led to when it was used.
    pub tables: u8,
    /// The records that were applied there.
    pub rows: Rows,
    /// The letters that are new or other than before.
    pub letters: DeadLetters,
}

/// One that projects a partition of a version. There may be several that believe to be the one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Knows nothing, and has no transaction.
    #[default]
    Idle,
    /// Has read, before it takes the row, what it ought to read under its lock.
    HasRead(Claim),
    /// Has taken the partition over. Whether that still counts it can't know.
    Claimed(Claim),
    /// Has begun a batch of so many records: its transaction has compared the row, and holds it.
    Begun(Claim, u8),
    /// Has written the batch, and believes these keys parked after it.
    Written(Claim, u8, Set, Changes),
}

/// What somebody who looks after letters is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Trying a key's letters again, from an offset on; `failed`: one before it has failed.
    Retry {
        /// Of this version.
        version: u8,
        /// In this partition.
        log: u8,
        /// The key.
        key: u8,
        /// All before this offset were tried.
        from: u8,
        /// One of those has failed.
        failed: bool,
    },
    /// Taking a letter out.
    Discard {
        /// Of this version.
        version: u8,
        /// In this partition.
        log: u8,
        /// The letter's record.
        offset: u8,
        /// Other versions known to have a letter for the record; none where that is not looked up yet.
        others: Option<Set>,
    },
}

impl Operation {
    /// The version that it is about.
    pub fn version(self) -> u8 {
        match self {
            Operation::Retry { version, .. } | Operation::Discard { version, .. } => version,
        }
    }

    /// The partition that it is about.
    pub fn log(self) -> u8 {
        match self {
            Operation::Retry { log, .. } | Operation::Discard { log, .. } => log,
        }
    }
}

/// One that looks after letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Operator {
    /// Does nothing.
    #[default]
    Idle,
    /// Has something to do, and no transaction.
    About(Operation),
    /// Has done it in a transaction that holds the partition's progress rows of these versions.
    Done {
        /// What it was, for the versions that it was done for.
        operation: Operation,
        /// Whose rows the transaction holds.
        rows: Set,
        /// What it has written, for each version.
        changes: [Option<Changes>; VERSIONS],
        /// What is to be done in a transaction of its own after this one.
        then: Option<Operation>,
    },
}

/// Everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// The versions.
    pub views: [View; VERSIONS],
    /// Whose tables each schema's name leads to.
    pub names: [Option<u8>; 1 + VERSIONS],
    /// The tables, by the version that they were made for, which is the one that they have to speak of.
    pub tables: [[Rows; LOGS]; VERSIONS],
    /// The records that an operator took out, by their coordinates, as far as that is kept.
    pub discards: [Set; LOGS],
    /// Those who project.
    pub owners: [Owner; OWNERS],
    /// Those who retry and discard.
    pub operators: [Operator; OPERATORS],
    /// Whether somebody is about to switch, who has found the other version not to be behind.
    pub switching: bool,
    /// How far a reader may have seen the live version.
    pub shown: [u8; LOGS],
    /// What an operator took out, whether or not that was kept.
    pub taken_out: [Set; LOGS],
    /// Whose tables a read under way has found, before it has found whose position goes with them.
    pub reading: Option<u8>,
    /// A record was applied after an operator had taken it out.
    pub discard_broken: bool,
    /// A paused version moved.
    pub pause_broken: bool,
    /// An answer was made of the rows of one version and the position of another.
    pub read_broken: bool,
    /// An owner was turned away by the comparison. Remembered where somebody asks.
    pub turned_away: bool,
    /// The answer to a COMMIT was lost. Remembered where somebody asks.
    pub unanswered: bool,
}

impl State {
    /// The versions that are there.
    pub fn versions(&self) -> impl Iterator<Item = u8> {
        (0..VERSIONS as u8).filter(|version| self.view(*version).exists())
    }

    /// A version.
    pub fn view(&self, version: u8) -> &View {
        &self.views[usize::from(version)]
    }

    /// A version, to be changed.
    pub fn view_mut(&mut self, version: u8) -> &mut View {
        &mut self.views[usize::from(version)]
    }

    /// A progress row.
    pub fn row(&self, version: u8, log: u8) -> &Progress {
        &self.view(version).progress[usize::from(log)]
    }

    /// A progress row, to be changed.
    pub fn row_mut(&mut self, version: u8, log: u8) -> &mut Progress {
        &mut self.view_mut(version).progress[usize::from(log)]
    }

    /// Whose tables a schema's name leads to.
    pub fn tables_of(&self, schema: Name) -> Option<u8> {
        self.names[schema.index()]
    }

    /// Whether a version has an open letter for a record.
    pub fn is_open(&self, version: u8, log: u8, offset: u8) -> bool {
        self.row(version, log).letters.is_open(offset)
    }
}

/// As a person calls a version.
pub fn version_name(version: u8) -> String {
    format!("v{}", version + 1)
}

/// As a person calls an owner.
pub fn owner_name(owner: usize) -> char {
    ['A', 'B', 'C', 'D'][owner]
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Live => f.write_str("live"),
            Name::Own(version) => f.write_str(&version_name(*version)),
        }
    }
}

/// The part of the database that matters, in one line.
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
