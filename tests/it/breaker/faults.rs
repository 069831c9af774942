//! What goes wrong. Each fault begins, lasts and is over when its function is: nothing stays broken behind it.
//! Lanes of them run side by side, so that any two of different lanes meet.

use super::stage::{SESSION, Slot, Stage};
use crate::support::app::SOON;
use crate::support::proxy::{Mode, Proxy};
use crate::support::wait_until;
use fastrand::Rng;
use futures_util::future::LocalBoxFuture;
use sqlx::{Connection, PgConnection};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// A way to break something, and how often it is chosen among those of its lane.
pub struct Fault {
    pub weight: u32,
    pub act: fn(Arc<Stage>, Rng) -> LocalBoxFuture<'static, ()>,
}

/// Faults of which one is there at a time, with pauses between them of up to so long.
pub struct Lane {
    pub faults: Vec<Fault>,
    pub pause: Duration,
}

macro_rules! faults {
    ($($weight:literal $act:ident),* $(,)?) => {
        vec![$($crate::breaker::faults::Fault {
            weight: $weight,
            act: |stage, rng| Box::pin($act(stage, rng)),
        }),*]
    };
}
pub(super) use faults;

/// All lanes.
pub fn lanes() -> Vec<Lane> {
    vec![
        Lane {
            faults: faults![
                6 kill,
                2 kill_while_it_starts,
                1 kill_all,
                2 terminate,
                3 freeze_for_a_moment,
                4 freeze_until_it_is_a_zombie,
                2 leave_for_a_while,
            ],
            pause: Duration::from_secs(3),
        },
        Lane {
            faults: faults![
                5 cut,
                4 deafen_and_cut,
                3 slow_down,
                3 stall,
                2 refuse,
                1 refuse_everybody,
            ],
            pause: Duration::from_secs(2),
        },
        Lane {
            faults: faults![
                3 restart_postgres,
                2 end_sessions,
                2 restart_broker,
            ],
            pause: Duration::from_secs(12),
        },
    ]
}

/// Breaks one thing after the other until then.
pub async fn run(lane: Lane, stage: Arc<Stage>, mut rng: Rng, until: Instant) {
    let weights: u32 = lane.faults.iter().map(|fault| fault.weight).sum();
    loop {
        sleep(up_to(&mut rng, lane.pause)).await;
        if Instant::now() >= until {
            return;
        }
        let mut lot = rng.u32(0..weights);
        let chosen = lane.faults.iter().find(|fault| {
            let hit = lot < fault.weight;
            lot = lot.saturating_sub(fault.weight);
            hit
        });
        let fault = chosen.expect("weights add up");
        (fault.act)(Arc::clone(&stage), rng.fork()).await;
    }
}

fn up_to(rng: &mut Rng, longest: Duration) -> Duration {
    longest.mul_f64(rng.f64())
}

pub fn between(rng: &mut Rng, shortest: u64, longest: u64) -> Duration {
    Duration::from_millis(rng.u64(shortest..longest))
}

// ---- processes

async fn kill(stage: Arc<Stage>, mut rng: Rng) {
    let slot = stage.slot(&mut rng);
    let mut instance = slot.instance.lock().await;
    if instance.is_some() {
        stage.diary.note(format!("kill {}", slot.number));
        stage.diary.count("kills", 1);
        slot.kill(&mut instance);
        sleep(up_to(&mut rng, Duration::from_secs(2))).await;
    }
    stage.start(slot, &mut instance).await;
    stage.diary.note(format!("{} is back", slot.number));
}

async fn kill_while_it_starts(stage: Arc<Stage>, mut rng: Rng) {
    let slot = stage.slot(&mut rng);
    let mut instance = slot.instance.lock().await;
    slot.kill(&mut instance);
    stage
        .diary
        .note(format!("kill {}, and while it starts", slot.number));
    let mut app = stage.launch(slot);
    let lines = rng.usize(0..12);
    let wrote = async || match app.process.output.lines().len() {
        n if n >= lines => Ok(()),
        n => Err(format!("{n} lines")),
    };
    // It may have less to say.
    let _ = tokio::time::timeout(Duration::from_secs(2), wait_until(SOON, "lines", wrote)).await;
    app.process.kill();
    stage.diary.count("kills", 2);
    stage.start(slot, &mut instance).await;
}

async fn kill_all(stage: Arc<Stage>, mut rng: Rng) {
    stage.diary.note("kill all");
    for slot in &stage.slots {
        slot.kill(&mut *slot.instance.lock().await);
        stage.diary.count("kills", 1);
    }
    sleep(up_to(&mut rng, Duration::from_secs(4))).await;
    for slot in &stage.slots {
        stage.start(slot, &mut *slot.instance.lock().await).await;
    }
    stage.diary.note("all are back");
}

async fn terminate(stage: Arc<Stage>, mut rng: Rng) {
    let slot = stage.slot(&mut rng);
    let mut instance = slot.instance.lock().await;
    stage.diary.note(format!("end {}", slot.number));
    if let Some(code) = slot.terminate(&mut instance) {
        stage
            .diary
            .note(format!("{} ended with {code}", slot.number));
        stage.diary.count("ends as asked", 1);
    }
    stage.start(slot, &mut instance).await;
}

async fn freeze_for_a_moment(stage: Arc<Stage>, mut rng: Rng) {
    let pause = between(&mut rng, 100, 3_000);
    freeze(&stage, stage.slot(&mut rng), pause).await;
}

/// Its partitions have gone to others when it wakes, in the middle of whatever it was doing.
async fn freeze_until_it_is_a_zombie(stage: Arc<Stage>, mut rng: Rng) {
    let pause = SESSION + between(&mut rng, 500, 6_000);
    stage.diary.count("zombies", 1);
    freeze(&stage, stage.slot(&mut rng), pause).await;
}

async fn freeze(stage: &Stage, slot: &Slot, pause: Duration) {
    let mut instance = slot.instance.lock().await;
    let Some(running) = &mut *instance else {
        return;
    };
    stage
        .diary
        .note(format!("freeze {} for {pause:?}", slot.number));
    stage.diary.count("stops", 1);
    running.app.process.signal("STOP");
    sleep(pause).await;
    running.app.process.signal("CONT");
    stage.diary.note(format!("{} goes on", slot.number));
}

async fn leave_for_a_while(stage: Arc<Stage>, mut rng: Rng) {
    let slot = stage.slot(&mut rng);
    let mut instance = slot.instance.lock().await;
    stage.diary.note(format!("{} leaves", slot.number));
    if rng.bool() {
        slot.terminate(&mut instance);
    } else {
        slot.kill(&mut instance);
        stage.diary.count("kills", 1);
    }
    sleep(between(&mut rng, 2_000, 12_000)).await;
    stage.start(slot, &mut instance).await;
    stage.diary.note(format!("{} joins", slot.number));
}

// ---- the network

/// One of the two ways that an instance has to somewhere.
fn way<'s>(stage: &'s Stage, rng: &mut Rng) -> (String, &'s Proxy) {
    let slot = stage.slot(rng);
    let (name, proxy) = if rng.u32(0..5) < 3 {
        ("Postgres", &slot.postgres)
    } else {
        ("Kafka", &slot.kafka)
    };
    (format!("{} to {name}", slot.number), proxy)
}

async fn cut(stage: Arc<Stage>, mut rng: Rng) {
    let (name, proxy) = way(&stage, &mut rng);
    let share = [30, 50, 100][rng.usize(0..3)];
    for _ in 0..rng.u32(1..4) {
        stage.diary.note(format!("cut {share} % of {name}"));
        stage.diary.count("cuts", 1);
        proxy.cut(share);
        sleep(between(&mut rng, 10, 700)).await;
    }
}

/// What is said arrives, its answer never: nobody knows whether the COMMIT was done.
async fn deafen_and_cut(stage: Arc<Stage>, mut rng: Rng) {
    let (name, proxy) = way(&stage, &mut rng);
    stage.diary.note(format!("deafen and cut {name}"));
    stage.diary.count("cuts", 1);
    proxy.set(Mode::Deaf);
    sleep(between(&mut rng, 20, 1_500)).await;
    proxy.cut(100);
    proxy.set(Mode::Open);
}

async fn slow_down(stage: Arc<Stage>, mut rng: Rng) {
    let (name, proxy) = way(&stage, &mut rng);
    let delay = between(&mut rng, 2, 120);
    stage.diary.note(format!("slow down {name} by {delay:?}"));
    stage.diary.count("slow phases", 1);
    proxy.set(Mode::Slow(delay));
    sleep(between(&mut rng, 1_000, 8_000)).await;
    proxy.set(Mode::Open);
}

async fn stall(stage: Arc<Stage>, mut rng: Rng) {
    let (name, proxy) = way(&stage, &mut rng);
    let pause = between(&mut rng, 300, 10_000);
    let lost = rng.bool();
    stage.diary.note(format!(
        "stall {name} for {pause:?}, lost after that: {lost}"
    ));
    stage.diary.count("slow phases", 1);
    proxy.set(Mode::Stalled);
    sleep(pause).await;
    if lost {
        stage.diary.count("cuts", 1);
        proxy.cut(100);
    }
    proxy.set(Mode::Open);
}

async fn refuse(stage: Arc<Stage>, mut rng: Rng) {
    let (name, proxy) = way(&stage, &mut rng);
    let pause = between(&mut rng, 500, 10_000);
    stage
        .diary
        .note(format!("no way from {name} for {pause:?}"));
    stage.diary.count("cuts", 1);
    proxy.set(Mode::Refused);
    sleep(pause).await;
    proxy.set(Mode::Open);
}

async fn refuse_everybody(stage: Arc<Stage>, mut rng: Rng) {
    let to_kafka = rng.bool();
    let set = |mode| {
        for slot in &stage.slots {
            if to_kafka {
                &slot.kafka
            } else {
                &slot.postgres
            }
            .set(mode);
        }
    };
    let name = if to_kafka { "Kafka" } else { "Postgres" };
    stage.diary.note(format!("no way for anybody to {name}"));
    stage.diary.count("cuts", stage.slots.len() as u64);
    set(Mode::Refused);
    sleep(between(&mut rng, 500, 6_000)).await;
    set(Mode::Open);
}

// ---- servers

async fn restart_postgres(stage: Arc<Stage>, mut rng: Rng) {
    stage.diary.note("kill Postgres");
    stage.diary.count("restarts of Postgres", 1);
    stage.world.database.kill().await;
    sleep(up_to(&mut rng, Duration::from_secs(3))).await;
    stage.world.database.start().await;
    stage.diary.note("Postgres is back");
}

/// As an administrator or a failover does it, all at once or some.
async fn end_sessions(stage: Arc<Stage>, mut rng: Rng) {
    let share = [0.3, 1.0][rng.usize(0..2)];
    stage.diary.note(format!("end sessions, share {share}"));
    let mut connection = PgConnection::connect(&stage.world.database.url)
        .await
        .expect("nobody else stops the server");
    let ended: i64 = sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE pid <> pg_backend_pid() AND application_name = 'sightline' AND random() < $1",
    )
    .bind(share)
    .fetch_one(&mut connection)
    .await
    .expect("a superuser may");
    stage.diary.count("sessions ended", ended as u64);
}

async fn restart_broker(stage: Arc<Stage>, mut rng: Rng) {
    stage.diary.note("kill the broker");
    stage.diary.count("restarts of the broker", 1);
    stage.world.broker.kill();
    sleep(up_to(&mut rng, Duration::from_secs(3))).await;
    stage.world.broker.start();
    stage.diary.note("the broker is back");
}
