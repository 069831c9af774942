//! The hand-over between pages and the ring, against a model of a feed: whatever order commits, the reader and watchers take
//! turns in, each watcher gets each change once, and those of a log in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::batch::{Batch, Passed, Reading, Row};
use super::ring::{Next, Reader, Shared};
use crate::projector::FeedPosition;
use crate::query::ConsistencyToken;
use crate::query::cursor::{Cursor, Fingerprint};

const LOGS: i32 = 3;
/// So large that a ring holds few batches.
const BATCH_BYTES: usize = 3 * 1024 * 1024;

fn log(n: i32) -> Fingerprint {
    Fingerprint::of("cluster", "topic", "id", n)
}

/// A feed whose changes are numbers.
#[derive(Default)]
struct Model {
    rows: BTreeMap<i32, Vec<(FeedPosition, u32)>>,
    /// The position and the epoch of each log.
    logs: BTreeMap<i32, (i64, i64)>,
    changes: u32,
}

impl Model {
    /// An event of a log that makes some rows; a retried one has the position of the log as it is.
    fn commit(&mut self, number: i32, rows: i64, is_retry: bool) {
        let (next_offset, epoch) = self.logs.entry(number).or_default();
        let sequence = if is_retry {
            *epoch += 1;
            *epoch << 32
        } else {
            *next_offset += 1;
            0
        };
        for index in 0..rows {
            let position = FeedPosition {
                next_offset: *next_offset,
                sequence: sequence + index,
            };
            self.changes += 1;
            self.rows
                .entry(number)
                .or_default()
                .push((position, self.changes));
        }
    }

    /// What a statement returns: of each log in turn, until the limit.
    fn read(&self, cursor: &Cursor, limit: usize) -> Batch<u32> {
        let mut left: Vec<_> = self
            .rows
            .iter()
            .map(|(number, rows)| {
                let rows = rows.iter();
                (
                    *number,
                    rows.filter(|(position, _)| !cursor.has_passed(log(*number), *position)),
                )
            })
            .collect();
        let mut found = Vec::new();
        let mut has_more = true;
        while has_more && found.len() < limit {
            has_more = false;
            for (number, rows) in &mut left {
                if found.len() < limit
                    && let Some((position, change)) = rows.next()
                {
                    has_more = true;
                    found.push(Arc::new(Row::new(log(*number), *position, *change)));
                }
            }
        }
        let ends = self.logs.iter();
        Batch {
            view_version: 1,
            is_complete: found.len() < limit,
            rows: found,
            end: ends
                .map(|(number, (next_offset, _))| {
                    (log(*number), FeedPosition::reached(*next_offset))
                })
                .collect(),
            reflects: ConsistencyToken::default().into(),
            bytes: BATCH_BYTES,
        }
    }
}

/// What a watcher does next.
enum Todo {
    TakeNumber,
    ReadPage(Option<u64>),
    Send(Batch<u32>, Option<u64>),
    Follow(u64),
}

struct Watcher {
    reading: Reading,
    next: Todo,
    after: u32,
    sent: Vec<(Fingerprint, u32)>,
}

impl Watcher {
    /// Begins after what is committed now, or at the beginning.
    fn new(model: &Model, at_beginning: bool) -> Self {
        let cursor = (!at_beginning).then(|| {
            let mut cursor = Cursor::default();
            for row in model.read(&cursor, usize::MAX).rows {
                cursor.set(row.log, row.position);
            }
            cursor
        });
        Self {
            reading: Reading::after(cursor),
            next: Todo::TakeNumber,
            after: if at_beginning { 0 } else { model.changes },
            sent: Vec::new(),
        }
    }

    fn send(&mut self, batch: &Batch<u32>) {
        for row in &batch.rows {
            if self.reading.pass(row) != Passed::Again {
                self.sent.push((row.log, row.change));
            }
        }
        self.reading.finish(batch);
    }

    /// Takes one step. Returns whether there was one to take.
    fn step(&mut self, model: &Model, shared: &Shared<u32>, limit: usize) -> bool {
        match std::mem::replace(&mut self.next, Todo::TakeNumber) {
            Todo::TakeNumber => self.next = Todo::ReadPage(shared.number()),
            Todo::ReadPage(number) => {
                self.next = Todo::Send(model.read(&self.reading.cursor, limit), number);
            }
            Todo::Send(batch, number) => {
                self.reading.begin(&batch);
                self.send(&batch);
                if let Some(number) = number.filter(|_| batch.is_complete) {
                    self.next = Todo::Follow(number);
                }
            }
            Todo::Follow(number) => match shared.get(number) {
                Next::Batch(batch) => {
                    self.send(&batch);
                    self.next = Todo::Follow(number + 1);
                }
                Next::NotYet => {
                    self.next = Todo::Follow(number);
                    return false;
                }
                Next::Gone => {}
            },
        }
        true
    }
}

/// The reader of the feed, as `keep_reading` does it.
struct ModelReader {
    reader: Reader<u32>,
    cursor: Option<Cursor>,
}

impl ModelReader {
    fn step(&mut self, model: &Model, limit: usize) {
        let Some(cursor) = &mut self.cursor else {
            let mut cursor = Cursor::default();
            for (log, end) in model.read(&cursor, 1).end {
                cursor.advance(log, end);
            }
            cursor.view_version = 1;
            self.cursor = Some(cursor);
            self.reader.is_current();
            return;
        };
        let batch = model.read(cursor, limit);
        for row in &batch.rows {
            cursor.set(row.log, row.position);
        }
        if batch.is_complete {
            for (log, end) in &batch.end {
                cursor.advance(*log, *end);
            }
        }
        if !batch.rows.is_empty() {
            self.reader.add(batch);
        }
    }

    fn interrupt(&mut self) {
        self.reader.interrupt();
        self.cursor = None;
    }
}

#[derive(Debug, Clone)]
enum Turn {
    Commit { log: i32, rows: i64, is_retry: bool },
    Read,
    Interrupt,
    Join { at_beginning: bool },
    Watch(usize),
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        6 => (0..LOGS, 0..4_i64, prop::bool::weighted(0.2))
            .prop_map(|(log, rows, is_retry)| Turn::Commit { log, rows, is_retry }),
        6 => Just(Turn::Read),
        1 => Just(Turn::Interrupt),
        2 => any::<bool>().prop_map(|at_beginning| Turn::Join { at_beginning }),
        16 => (0..8_usize).prop_map(Turn::Watch),
    ];
    proptest::collection::vec(turn, 0..200)
}

proptest! {
    #[test]
    fn each_watcher_gets_each_change_once(turns in turns(), limit in 1..6_usize) {
        let mut model = Model::default();
        let shared = Arc::new(Shared::default());
        let reader = shared.begin_reading().expect("the first");
        prop_assert!(shared.begin_reading().is_none());
        let mut reader = ModelReader { reader, cursor: None };
        let mut watchers: Vec<Watcher> = Vec::new();
        for turn in turns {
            match turn {
                Turn::Commit { log, rows, is_retry } => model.commit(log, rows, is_retry),
                Turn::Read => reader.step(&model, limit),
                Turn::Interrupt => reader.interrupt(),
                Turn::Join { at_beginning } => watchers.push(Watcher::new(&model, at_beginning)),
                Turn::Watch(n) => {
                    if let Some(watcher) = watchers.get_mut(n) {
                        watcher.step(&model, &shared, limit);
                    }
                }
            }
        }
        // When nothing more is committed, all get to the end.
        for _ in 0..model.changes + 2 {
            reader.step(&model, limit);
        }
        for watcher in &mut watchers {
            while watcher.step(&model, &shared, limit) {}
            for number in 0..LOGS {
                let sent: Vec<u32> = watcher.sent.iter().filter(|(of, _)| *of == log(number)).map(|(_, change)| *change).collect();
                let rows = model.rows.get(&number).into_iter().flatten();
                let expected: Vec<u32> = rows.map(|(_, change)| *change).filter(|change| *change > watcher.after).collect();
                prop_assert_eq!(sent, expected);
            }
        }
    }
}
