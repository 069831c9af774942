//! The harness: a broker, a Postgres, and instances of the program that reach both through proxies only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use sightline_testing::app::{App, Running, SOON, World, sightline};
use sightline_testing::broker::Broker;
use sightline_testing::client::Rest;
use sightline_testing::database::Database;
use sightline_testing::hostile_log::{HEALING_BYTES, MAX_VALUE_BYTES};
use sightline_testing::process::Output;
use sightline_testing::proxy::{Mode, Proxy};
use tokio::sync::Notify;

use super::movers;

/// The session time-out of consumer groups.
pub const SESSION: Duration = Duration::from_secs(6);

/// Servers and instances, and the diary of the run.
pub struct Harness {
    pub world: World,
    pub slots: Vec<Slot>,
    pub diary: Diary,
    /// How many partitions the topic begins with.
    pub partitions: i32,
    /// The limit of values for instances that start next.
    limit: AtomicUsize,
    launched: AtomicUsize,
    is_calm: AtomicBool,
    /// The dead letters whose discard an operator has requested: domain, partition, offset.
    pub discards: Mutex<BTreeSet<(&'static str, i32, i64)>>,
}

/// Room for one instance, with its proxies.
pub struct Slot {
    pub number: usize,
    pub kafka: Proxy,
    pub postgres: Proxy,
    /// Locked while a fault acts on the process.
    pub instance: tokio::sync::Mutex<Option<Running>>,
    /// A client of the instance, which may have ended since.
    rest: Mutex<Option<Rest>>,
    /// The output of each process that ran here.
    outputs: Mutex<Vec<Output>>,
}

impl Harness {
    /// `None` where there is no real Kafka.
    pub async fn new(partitions: i32, instances: usize) -> Option<Harness> {
        let mut slots = Vec::new();
        for number in 0..instances {
            slots.push(Slot {
                number,
                kafka: Proxy::new().await,
                postgres: Proxy::new().await,
                instance: tokio::sync::Mutex::new(None),
                rest: Mutex::new(None),
                outputs: Mutex::default(),
            });
        }
        let proxies: Vec<u16> = slots.iter().map(|slot| slot.kafka.port).collect();
        let broker = Broker::private_behind(&proxies)?;
        let database = Database::private().await;
        for (slot, port) in slots.iter().zip(broker.behind()) {
            slot.kafka.set_target(port);
            slot.postgres.set_target(database.port());
        }
        let mut world = World::new(broker, database, partitions).await;
        world.set("SIGHTLINE_DOMAINS", "all");
        let properties = format!(
            "session.timeout.ms={},heartbeat.interval.ms=1000,topic.metadata.refresh.interval.ms=1000",
            SESSION.as_millis()
        );
        world.set("SIGHTLINE_KAFKA_PROPERTIES", &properties).set(
            "SIGHTLINE_KAFKA_SETTLE_SECONDS",
            &movers::SETTLE.as_secs().to_string(),
        );
        Some(Harness {
            world,
            slots,
            diary: Diary::new(),
            partitions,
            limit: AtomicUsize::new(MAX_VALUE_BYTES),
            launched: AtomicUsize::new(0),
            is_calm: AtomicBool::new(false),
            discards: Mutex::default(),
        })
    }

    /// Switches between the smaller and the larger limit, and returns the new one.
    pub fn change_the_limit(&self) -> usize {
        let other = |limit| MAX_VALUE_BYTES + HEALING_BYTES - limit;
        let before = self
            .limit
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |limit| {
                Some(other(limit))
            });
        other(before.expect("always `Some`"))
    }

    /// A random slot.
    pub fn slot(&self, rng: &mut Rng) -> &Slot {
        &self.slots[rng.usize(0..self.slots.len())]
    }

    /// A client of a random instance, if its slot is not empty.
    pub fn rest(&self, rng: &mut Rng) -> Option<Rest> {
        self.slot(rng).rest()
    }

    /// Starts an instance in an empty slot, and waits until it listens.
    pub async fn start(&self, slot: &Slot, instance: &mut Option<Running>) {
        let running = self.launch(slot).listening().await;
        *slot.rest.lock().unwrap() = Some(running.rest.clone());
        *instance = Some(running);
    }

    /// Starts a process for a slot; its ports may not be open yet.
    pub fn launch(&self, slot: &Slot) -> App {
        let mut command = sightline(&["serve"]);
        self.world.apply(&mut command);
        command.env(
            "SIGHTLINE_KAFKA_BROKERS",
            format!("127.0.0.1:{}", slot.kafka.port),
        );
        let url = self.world.database.url_through(slot.postgres.port);
        command.env("SIGHTLINE_DATABASE_URL", url);
        let limit = self.limit.load(Ordering::Relaxed);
        command.env("SIGHTLINE_MAX_VALUE_BYTES", limit.to_string());
        // Every third process is of an older release, until the faults are over.
        let launched = self.launched.fetch_add(1, Ordering::Relaxed);
        let is_old = launched % 3 == 1 && !self.is_calm.load(Ordering::Relaxed);
        if is_old {
            self.diary.count("processes of an older release", 1);
        }
        let code_version = if is_old { "4" } else { "5" };
        command.env("SIGHTLINE_TEST_CODE_VERSION", code_version);
        let app = App::start(&command);
        slot.outputs
            .lock()
            .unwrap()
            .push(app.process.output.clone());
        app
    }

    /// Opens all proxies, and starts a fresh instance with the larger limit in every slot.
    pub async fn calm(&self) {
        self.limit.store(HEALING_BYTES, Ordering::Relaxed);
        self.is_calm.store(true, Ordering::Relaxed);
        for slot in &self.slots {
            slot.kafka.set(Mode::Open);
            slot.postgres.set(Mode::Open);
            let mut instance = slot.instance.lock().await;
            if let Some(running) = &mut *instance
                && let Some(code) = running.app.process.exited()
            {
                let violation = format!("instance {} exited with {code}", slot.number);
                self.diary.violation(violation);
            }
            slot.terminate(&mut instance);
            self.start(slot, &mut instance).await;
        }
    }

    /// Reads the output of all processes: a panic is a violation, errors are counted.
    pub fn read_outputs(&self) {
        for slot in &self.slots {
            for output in slot.outputs.lock().unwrap().iter() {
                for line in output.lines() {
                    if line.contains("panicked at") {
                        self.diary
                            .violation(format!("instance {} panicked: {line}", slot.number));
                    }
                    if line.contains("\"level\":\"ERROR\"") {
                        self.diary.count("errors logged", 1);
                    }
                }
            }
            self.diary.count(
                "connections broken",
                slot.kafka.broken() + slot.postgres.broken(),
            );
        }
    }

    /// Writes the diary and the output of all processes to a directory.
    pub fn keep_outputs(&self, seed: u64) -> PathBuf {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{seed}"));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).expect("writable");
        for slot in &self.slots {
            for (n, output) in slot.outputs.lock().unwrap().iter().enumerate() {
                let file = directory.join(format!("instance-{}-{n}.log", slot.number));
                std::fs::write(file, output.text()).expect("writable");
            }
        }
        std::fs::write(directory.join("diary.log"), self.diary.text()).expect("writable");
        directory
    }
}

impl Slot {
    pub fn rest(&self) -> Option<Rest> {
        self.rest.lock().unwrap().clone()
    }

    /// Kills the instance with SIGKILL, if there is one.
    pub fn kill(&self, instance: &mut Option<Running>) {
        if let Some(mut running) = instance.take() {
            *self.rest.lock().unwrap() = None;
            running.app.process.kill();
        }
    }

    /// Sends SIGTERM to the instance, if there is one, and waits for its exit code.
    pub fn terminate(&self, instance: &mut Option<Running>) -> Option<i32> {
        let mut running = instance.take()?;
        *self.rest.lock().unwrap() = None;
        running.app.process.signal("TERM");
        Some(running.app.process.wait(SOON))
    }
}

/// What was done and when, how often, and which violations were found.
pub struct Diary {
    began: Instant,
    lines: Mutex<Vec<String>>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    violations: Mutex<Vec<String>>,
    violated: Notify,
}

impl Diary {
    fn new() -> Diary {
        Diary {
            began: Instant::now(),
            lines: Mutex::default(),
            counts: Mutex::default(),
            violations: Mutex::default(),
            violated: Notify::new(),
        }
    }

    pub fn note(&self, line: impl AsRef<str>) {
        let line = format!(
            "{:8.3} {}",
            self.began.elapsed().as_secs_f64(),
            line.as_ref()
        );
        self.lines.lock().unwrap().push(line);
    }

    pub fn count(&self, what: &'static str, times: u64) {
        *self.counts.lock().unwrap().entry(what).or_default() += times;
    }

    /// Records something that must never happen.
    pub fn violation(&self, what: String) {
        self.note(format!("VIOLATION {what}"));
        self.violations.lock().unwrap().push(what);
        self.violated.notify_one();
    }

    /// Waits for the first violation.
    pub async fn violated(&self) {
        self.violated.notified().await;
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }

    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap().clone()
    }

    pub fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }
}
