//! The faults. A fault's function begins it, waits, and ends it before it returns. Lanes of faults run at the
//! same time, so that any two faults of different lanes can overlap.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use futures_util::future::LocalBoxFuture;
use sightline_testing::app::SOON;
use sightline_testing::proxy::{Mode, Proxy};
use sightline_testing::wait_until;
use sqlx::{Connection, PgConnection};
use tokio::time::sleep;

use super::harness::{Harness, SESSION, Slot};

/// A fault, and its weight among the faults of its lane.
pub struct Fault {
    pub weight: u32,
    pub act: fn(Arc<Harness>, Rng) -> LocalBoxFuture<'static, ()>,
}

/// Faults that run one at a time, with pauses of up to `pause` between them.
pub struct Lane {
    pub faults: Vec<Fault>,
    pub pause: Duration,
}

macro_rules! faults {
    ($($weight:literal $act:ident),* $(,)?) => {
        vec![$($crate::chaos::faults::Fault {
            weight: $weight,
            act: |harness, rng| Box::pin($act(harness, rng)),
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
                4 freeze_beyond_its_session,
                2 stop_for_a_while,
            ],
            pause: Duration::from_secs(3),
        },
        Lane {
            faults: faults![
                5 cut,
                4 withhold_answers_and_cut,
                3 slow_down,
                3 stall,
                2 refuse,
                1 refuse_all,
                2 abandon,
            ],
            pause: Duration::from_secs(2),
        },
        Lane {
            faults: faults![
                3 restart_postgres,
                2 end_sessions,
                2 restart_broker,
                2 demote_postgres,
                2 set_the_clock_back,
            ],
            pause: Duration::from_secs(12),
        },
        Lane {
            faults: faults![1 back_up],
            pause: Duration::from_secs(15),
        },
    ]
}

/// Runs one fault after the other until `until`.
pub async fn run(lane: Lane, harness: Arc<Harness>, mut rng: Rng, until: Instant) {
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
        (fault.act)(Arc::clone(&harness), rng.fork()).await;
    }
}

fn up_to(rng: &mut Rng, longest: Duration) -> Duration {
    longest.mul_f64(rng.f64())
}

pub fn between(rng: &mut Rng, shortest: u64, longest: u64) -> Duration {
    Duration::from_millis(rng.u64(shortest..longest))
}

// ---- processes

async fn kill(harness: Arc<Harness>, mut rng: Rng) {
    let slot = harness.slot(&mut rng);
    let mut instance = slot.instance.lock().await;
    if instance.is_some() {
        harness.diary.note(format!("kill {}", slot.number));
        harness.diary.count("kills", 1);
        slot.kill(&mut instance);
        sleep(up_to(&mut rng, Duration::from_secs(2))).await;
    }
    harness.start(slot, &mut instance).await;
    harness.diary.note(format!("{} is back", slot.number));
}

async fn kill_while_it_starts(harness: Arc<Harness>, mut rng: Rng) {
    let slot = harness.slot(&mut rng);
    let mut instance = slot.instance.lock().await;
    slot.kill(&mut instance);
    harness
        .diary
        .note(format!("kill {}, and while it starts", slot.number));
    let mut app = harness.launch(slot);
    let lines = rng.usize(0..12);
    let wrote = async || match app.process.output.lines().len() {
        n if n >= lines => Ok(()),
        n => Err(format!("{n} lines")),
    };
    // The process may write fewer lines; two seconds are enough then.
    let _ = tokio::time::timeout(Duration::from_secs(2), wait_until(SOON, "lines", wrote)).await;
    app.process.kill();
    harness.diary.count("kills", 2);
    harness.start(slot, &mut instance).await;
}

async fn kill_all(harness: Arc<Harness>, mut rng: Rng) {
    harness.diary.note("kill all");
    for slot in &harness.slots {
        slot.kill(&mut *slot.instance.lock().await);
        harness.diary.count("kills", 1);
    }
    sleep(up_to(&mut rng, Duration::from_secs(4))).await;
    for slot in &harness.slots {
        harness.start(slot, &mut *slot.instance.lock().await).await;
    }
    harness.diary.note("all are back");
}

async fn terminate(harness: Arc<Harness>, mut rng: Rng) {
    let slot = harness.slot(&mut rng);
    let mut instance = slot.instance.lock().await;
    harness.diary.note(format!("terminate {}", slot.number));
    if let Some(code) = slot.terminate(&mut instance) {
        harness
            .diary
            .note(format!("{} exited with {code}", slot.number));
        harness.diary.count("terminations", 1);
    }
    harness.start(slot, &mut instance).await;
}

async fn freeze_for_a_moment(harness: Arc<Harness>, mut rng: Rng) {
    let pause = between(&mut rng, 100, 3_000);
    freeze(&harness, harness.slot(&mut rng), pause).await;
}

/// When the process wakes, in the middle of any operation, other instances own its partitions.
async fn freeze_beyond_its_session(harness: Arc<Harness>, mut rng: Rng) {
    let pause = SESSION + between(&mut rng, 500, 6_000);
    harness.diary.count("zombies", 1);
    freeze(&harness, harness.slot(&mut rng), pause).await;
}

async fn freeze(harness: &Harness, slot: &Slot, pause: Duration) {
    let mut instance = slot.instance.lock().await;
    let Some(running) = &mut *instance else {
        return;
    };
    harness
        .diary
        .note(format!("freeze {} for {pause:?}", slot.number));
    harness.diary.count("stops", 1);
    running.app.process.signal("STOP");
    sleep(pause).await;
    running.app.process.signal("CONT");
    harness.diary.note(format!("{} continues", slot.number));
}

async fn stop_for_a_while(harness: Arc<Harness>, mut rng: Rng) {
    let slot = harness.slot(&mut rng);
    let mut instance = slot.instance.lock().await;
    harness.diary.note(format!("{} stops", slot.number));
    if rng.bool() {
        slot.terminate(&mut instance);
    } else {
        slot.kill(&mut instance);
        harness.diary.count("kills", 1);
    }
    sleep(between(&mut rng, 2_000, 12_000)).await;
    harness.start(slot, &mut instance).await;
    harness.diary.note(format!("{} starts", slot.number));
}

// ---- the network

/// One of an instance's two proxies, and a name for the diary.
fn connection<'s>(harness: &'s Harness, rng: &mut Rng) -> (String, &'s Proxy) {
    let slot = harness.slot(rng);
    let (name, proxy) = if rng.u32(0..5) < 3 {
        ("Postgres", &slot.postgres)
    } else {
        ("Kafka", &slot.kafka)
    };
    (format!("{} to {name}", slot.number), proxy)
}

async fn cut(harness: Arc<Harness>, mut rng: Rng) {
    let (name, proxy) = connection(&harness, &mut rng);
    let share = [30, 50, 100][rng.usize(0..3)];
    for _ in 0..rng.u32(1..4) {
        harness.diary.note(format!("cut {share} % of {name}"));
        harness.diary.count("cuts", 1);
        proxy.cut(share);
        sleep(between(&mut rng, 10, 700)).await;
    }
}

/// Requests arrive, answers do not: the instance cannot know whether its COMMIT was executed.
async fn withhold_answers_and_cut(harness: Arc<Harness>, mut rng: Rng) {
    let (name, proxy) = connection(&harness, &mut rng);
    harness
        .diary
        .note(format!("withhold answers and cut {name}"));
    harness.diary.count("cuts", 1);
    proxy.set(Mode::NoAnswers);
    sleep(between(&mut rng, 20, 1_500)).await;
    proxy.cut(100);
    proxy.set(Mode::Open);
}

/// The connections that are open lead nowhere from now on, without a word.
async fn abandon(harness: Arc<Harness>, mut rng: Rng) {
    let (name, proxy) = connection(&harness, &mut rng);
    harness
        .diary
        .note(format!("abandon the connections of {name}"));
    harness.diary.count("connections abandoned", 1);
    proxy.abandon();
}

async fn slow_down(harness: Arc<Harness>, mut rng: Rng) {
    let (name, proxy) = connection(&harness, &mut rng);
    let delay = between(&mut rng, 2, 120);
    harness.diary.note(format!("slow down {name} by {delay:?}"));
    harness.diary.count("slow phases", 1);
    proxy.set(Mode::Slow(delay));
    sleep(between(&mut rng, 1_000, 8_000)).await;
    proxy.set(Mode::Open);
}

async fn stall(harness: Arc<Harness>, mut rng: Rng) {
    let (name, proxy) = connection(&harness, &mut rng);
    let pause = between(&mut rng, 300, 10_000);
    let lost = rng.bool();
    harness
        .diary
        .note(format!("stall {name} for {pause:?}, then cut: {lost}"));
    harness.diary.count("slow phases", 1);
    proxy.set(Mode::Stalled);
    sleep(pause).await;
    if lost {
        harness.diary.count("cuts", 1);
        proxy.cut(100);
    }
    proxy.set(Mode::Open);
}

async fn refuse(harness: Arc<Harness>, mut rng: Rng) {
    let (name, proxy) = connection(&harness, &mut rng);
    let pause = between(&mut rng, 500, 10_000);
    harness.diary.note(format!("refuse {name} for {pause:?}"));
    harness.diary.count("cuts", 1);
    proxy.set(Mode::Refused);
    sleep(pause).await;
    proxy.set(Mode::Open);
}

async fn refuse_all(harness: Arc<Harness>, mut rng: Rng) {
    let to_kafka = rng.bool();
    let set = |mode| {
        for slot in &harness.slots {
            if to_kafka {
                &slot.kafka
            } else {
                &slot.postgres
            }
            .set(mode);
        }
    };
    let name = if to_kafka { "Kafka" } else { "Postgres" };
    harness
        .diary
        .note(format!("refuse all connections to {name}"));
    harness.diary.count("cuts", harness.slots.len() as u64);
    set(Mode::Refused);
    sleep(between(&mut rng, 500, 6_000)).await;
    set(Mode::Open);
}

// ---- servers

async fn restart_postgres(harness: Arc<Harness>, mut rng: Rng) {
    harness.diary.note("kill Postgres");
    harness.diary.count("restarts of Postgres", 1);
    harness.world.database.kill().await;
    sleep(up_to(&mut rng, Duration::from_secs(3))).await;
    harness.world.database.start().await;
    harness.diary.note("Postgres is back");
}

/// Ends all or some sessions, as an administrator or a failover does.
async fn end_sessions(harness: Arc<Harness>, mut rng: Rng) {
    let share = [0.3, 1.0][rng.usize(0..2)];
    harness.diary.note(format!("end sessions, share {share}"));
    let mut connection = PgConnection::connect(&harness.world.database.url)
        .await
        .expect("no other fault stops the server");
    let ended: i64 = sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE pid <> pg_backend_pid() AND application_name = 'sightline' AND random() < $1",
    )
    .bind(share)
    .fetch_one(&mut connection)
    .await
    .expect("the superuser may end sessions");
    harness.diary.count("sessions ended", ended as u64);
}

async fn restart_broker(harness: Arc<Harness>, mut rng: Rng) {
    harness.diary.note("kill the broker");
    harness.diary.count("restarts of the broker", 1);
    harness.world.broker.kill();
    sleep(up_to(&mut rng, Duration::from_secs(3))).await;
    harness.world.broker.start();
    harness.diary.note("the broker is back");
}

/// Makes sessions read-only for a while, as if the server had been demoted behind its address.
async fn demote_postgres(harness: Arc<Harness>, mut rng: Rng) {
    let pause = between(&mut rng, 500, 8_000);
    harness.diary.note(format!("demote Postgres for {pause:?}"));
    harness.diary.count("demotions of Postgres", 1);
    let mut connection = PgConnection::connect(&harness.world.database.url)
        .await
        .expect("no other fault stops the server");
    let demote = [
        // This session has to end the fault.
        "SET default_transaction_read_only = off",
        "ALTER SYSTEM SET default_transaction_read_only = on",
        "SELECT pg_reload_conf()",
    ];
    let promote = [
        "ALTER SYSTEM RESET default_transaction_read_only",
        "SELECT pg_reload_conf()",
    ];
    execute(&mut connection, &demote).await;
    sleep(pause).await;
    execute(&mut connection, &promote).await;
    harness.diary.note("Postgres takes writes again");
}

async fn execute(connection: &mut PgConnection, statements: &[&'static str]) {
    for statement in statements {
        sqlx::query(*statement)
            .execute(&mut *connection)
            .await
            .expect("the superuser may do this");
    }
}

/// Moves readings of the log's offsets and heartbeats ahead, as if the database's clock had been set back since.
async fn set_the_clock_back(harness: Arc<Harness>, mut rng: Rng) {
    let seconds = rng.i32(1..7_200);
    harness
        .diary
        .note(format!("set the clock back by {seconds} s"));
    let mut connection = PgConnection::connect(&harness.world.database.url)
        .await
        .expect("no other fault stops the server");
    for statement in [
        "UPDATE sightline.log_offsets SET read_at = read_at + make_interval(secs => $1)",
        "UPDATE sightline.heartbeats SET seen_at = seen_at + make_interval(secs => $1)",
    ] {
        let moved = sqlx::query(statement)
            .bind(f64::from(seconds))
            .execute(&mut connection)
            .await;
        match moved {
            Ok(moved) => {
                let rows = moved.rows_affected();
                harness.diary.count("times moved ahead", rows);
            }
            // A deadlock with an instance that writes the same rows, or there are no tables yet.
            Err(error) => harness.diary.note(format!("times were not moved: {error}")),
        }
    }
}

/// Holds the tables of all versions for a while, as a backup does. Ends early if a version is dropped before its
/// tables are read, or with the server.
async fn back_up(harness: Arc<Harness>, mut rng: Rng) {
    let pause = between(&mut rng, 2_000, 30_000);
    let Ok(mut connection) = PgConnection::connect(&harness.world.database.url).await else {
        return;
    };
    match read_all_tables(&mut connection).await {
        Ok(0) => harness.diary.note("a backup found no tables yet"),
        Ok(tables) => {
            harness
                .diary
                .note(format!("a backup reads {tables} tables for {pause:?}"));
            harness.diary.count("backups", 1);
            sleep(pause).await;
            harness.diary.note("the backup ends");
        }
        Err(error) => harness.diary.note(format!("a backup failed: {error}")),
    }
    // The locks end with the session.
    let _ = connection.close().await;
}

/// Begins a transaction and reads from all tables of all versions. Returns how many there are.
async fn read_all_tables(connection: &mut PgConnection) -> sqlx::Result<usize> {
    for statement in [
        "SET application_name = 'pg_dump'",
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    ] {
        sqlx::query(statement).execute(&mut *connection).await?;
    }
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname ~ '_(live|v[0-9]+)$'",
    )
    .fetch_all(&mut *connection)
    .await?;
    for table in &tables {
        let read = format!("SELECT FROM {table} LIMIT 1");
        sqlx::query(sqlx::AssertSqlSafe(read))
            .execute(&mut *connection)
            .await?;
    }
    Ok(tables.len())
}
