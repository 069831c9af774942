//! Where things break: a broker, a Postgres, and instances of the program that reach both only through proxies.

use crate::support::app::{App, Running, SOON, World, sightline};
use crate::support::broker::Broker;
use crate::support::client::Rest;
use crate::support::database::Database;
use crate::support::log::{HEALING_BYTES, MAX_VALUE_BYTES};
use crate::support::process::Output;
use crate::support::proxy::{Mode, Proxy};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long a member of a consumer group may be silent.
pub const SESSION: Duration = Duration::from_secs(6);

/// Everything that is there, and what has become of it.
pub struct Stage {
    pub world: World,
    pub slots: Vec<Slot>,
    pub diary: Diary,
    /// The limit of values for whoever is started next.
    limit: AtomicUsize,
    /// Which letters somebody has tried to take out: domain, partition, offset.
    pub discards: Mutex<BTreeSet<(&'static str, i32, i64)>>,
}

/// The place of one instance, which may be empty.
pub struct Slot {
    pub number: usize,
    pub kafka: Proxy,
    pub postgres: Proxy,
    /// Held by whoever does something to the process.
    pub instance: tokio::sync::Mutex<Option<Running>>,
    /// Where it answers, or did a moment ago.
    rest: Mutex<Option<Rest>>,
    /// What each process here has written.
    outputs: Mutex<Vec<Output>>,
}

impl Stage {
    /// `None` where there is no real Kafka.
    pub async fn new(partitions: i32, instances: usize) -> Option<Stage> {
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
            slot.kafka.lead_to(port);
            slot.postgres.lead_to(database.port());
        }
        let mut world = World::new(broker, database, partitions).await;
        let properties = format!(
            "session.timeout.ms={},heartbeat.interval.ms=1000",
            SESSION.as_millis()
        );
        world.set("SIGHTLINE_KAFKA_PROPERTIES", &properties);
        Some(Stage {
            world,
            slots,
            diary: Diary::new(),
            limit: AtomicUsize::new(MAX_VALUE_BYTES),
            discards: Mutex::default(),
        })
    }

    /// The larger limit after the smaller one, and the other way round; which it is now.
    pub fn change_the_limit(&self) -> usize {
        let other = |limit| MAX_VALUE_BYTES + HEALING_BYTES - limit;
        let before = self
            .limit
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |limit| {
                Some(other(limit))
            });
        other(before.expect("there is another"))
    }

    /// Any slot.
    pub fn slot(&self, rng: &mut Rng) -> &Slot {
        &self.slots[rng.usize(0..self.slots.len())]
    }

    /// Where an instance answers, or is believed to.
    pub fn rest(&self, rng: &mut Rng) -> Option<Rest> {
        self.slot(rng).rest()
    }

    /// Starts an instance in a slot that is empty, and waits until it listens.
    pub async fn start(&self, slot: &Slot, instance: &mut Option<Running>) {
        let running = self.launch(slot).listening().await;
        *slot.rest.lock().unwrap() = Some(running.rest.clone());
        *instance = Some(running);
    }

    /// Starts a process there; its ports may not be open yet.
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
        let app = App::start(&command);
        slot.outputs
            .lock()
            .unwrap()
            .push(app.process.output.clone());
        app
    }

    /// The end of all trouble: the ways are open, and every slot has an instance that lives and has the last limit.
    pub async fn calm(&self) {
        self.limit.store(HEALING_BYTES, Ordering::Relaxed);
        for slot in &self.slots {
            slot.kafka.set(Mode::Open);
            slot.postgres.set(Mode::Open);
            let mut instance = slot.instance.lock().await;
            if let Some(running) = &mut *instance
                && let Some(code) = running.app.process.exited()
            {
                let violation = format!("instance {} ended with {code}", slot.number);
                self.diary.violation(violation);
            }
            slot.terminate(&mut instance);
            self.start(slot, &mut instance).await;
        }
    }

    /// What every process here has written: that none has panicked, and how often they complained.
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

    /// Writes down what everybody has written, for whoever looks for the cause.
    pub fn keep_outputs(&self, seed: u64) -> PathBuf {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("breaker-{seed}"));
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

    /// Kills what is there, at once.
    pub fn kill(&self, instance: &mut Option<Running>) {
        if let Some(mut running) = instance.take() {
            *self.rest.lock().unwrap() = None;
            running.app.process.kill();
        }
    }

    /// Asks what is there to end, and waits until it has; its exit code.
    pub fn terminate(&self, instance: &mut Option<Running>) -> Option<i32> {
        let mut running = instance.take()?;
        *self.rest.lock().unwrap() = None;
        running.app.process.signal("TERM");
        Some(running.app.process.wait(SOON))
    }
}

/// What was done when, how often, and what must not have been.
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

    /// Something that must never be.
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
