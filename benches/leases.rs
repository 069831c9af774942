//! How many notifications a second workers lease and acknowledge, each worker one after the other, with none and with a million that
//! were sent before. Beside it: the same two statements as one would write them by hand, without HTTP.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sightline::domains::notification::Notification;
use sightline_testing::client::Rest;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::report::Report;
use crate::topic::{Domains, Topic};
use crate::{BY_HAND, Bench, Build};

const DOMAINS: Domains = &[&Notification::DEFAULT];
const NOTIFICATIONS: &str = "/v1/notification/notifications";
/// How many are pending when a measurement begins.
const PENDING: i64 = 10_000;
const SENT: [i64; 2] = [0, 1_000_000];
const WORKERS: [usize; 3] = [1, 16, 200];
const TIME: Duration = Duration::from_secs(4);
/// As many connections as a gateway has for its queue.
const CONNECTIONS: u32 = 4;

pub async fn run(bench: &Bench, report: &mut Report) {
    for sent in SENT {
        let topic = Topic::create(bench).await;
        let (database, pool) = bench.migrated(&Build::this()).await;
        add(&pool, sent, "sent").await;
        let running = topic
            .serve(&Build::this(), DOMAINS, &database)
            .ready()
            .await;
        let by_hand = PgPoolOptions::new().max_connections(CONNECTIONS);
        let by_hand = by_hand.connect(&database).await.expect("Postgres answers");
        for _ in 0..bench.settings.rounds {
            for workers in WORKERS {
                let row = format!("{sent} sent, {workers} workers");
                add(&pool, PENDING, "ready").await;
                let rest = running.rest.clone();
                let rate = rate(workers, || over_rest(rest.clone())).await;
                report.add(&row, "leased and acknowledged/s", rate);
                add(&pool, PENDING, "ready").await;
                let rate = self::rate(workers, || in_sql(by_hand.clone())).await;
                report.add(
                    &format!("{row}: {BY_HAND}"),
                    "leased and acknowledged/s",
                    rate,
                );
            }
        }
        drop(running);
        by_hand.close().await;
        pool.close().await;
        bench.drop_database(&database).await;
    }
}

/// Adds notifications whose deliveries have a state, and takes away what is left of those before.
async fn add(pool: &PgPool, count: i64, state: &str) {
    sqlx::query("UPDATE notification.deliveries SET state = 'sent', due_at = NULL WHERE state IN ('ready', 'leased')")
        .execute(pool)
        .await
        .expect("sent");
    sqlx::query(
        "WITH made AS (
             INSERT INTO notification_live.notifications
             SELECT gen_random_uuid(), gen_random_uuid(), 'u-' || n, 'e-' || n, 'welcome', 'ada@example.org', '{\"userId\":\"u\"}',
                    now() - n * interval '1 ms', now() + interval '7 days', 1, n
             FROM generate_series(1, $1) AS n
             RETURNING notification_id, template, created_at, expires_at
         )
         INSERT INTO notification.deliveries (notification_id, template, created_at, expires_at, state)
         SELECT notification_id, template, created_at, expires_at, $2 FROM made",
    )
    .bind(count)
    .bind(state)
    .execute(pool)
    .await
    .expect("notifications");
    sqlx::query("VACUUM (ANALYZE)")
        .execute(pool)
        .await
        .expect("vacuumed");
}

/// How many notifications a second so many workers get done.
async fn rate<W: Future<Output = bool> + Send + 'static>(
    workers: usize,
    mut send_one: impl FnMut() -> W,
) -> f64 {
    let (mut done, mut tasks) = (0, JoinSet::new());
    let began = Instant::now();
    for _ in 0..workers {
        tasks.spawn(send_one());
    }
    while let Some(has_sent) = tasks.join_next().await {
        if has_sent.expect("no panic") && began.elapsed() < TIME {
            done += 1;
            tasks.spawn(send_one());
        }
    }
    f64::from(done) / began.elapsed().as_secs_f64()
}

/// Leases and acknowledges a notification. Whether there was one.
async fn over_rest(rest: Rest) -> bool {
    let body = json!({"max": 1, "leaseSeconds": 60});
    let leased = rest
        .post(&format!("{NOTIFICATIONS}:lease"), &body)
        .await
        .json();
    let Some(leased) = leased["notifications"].get(0) else {
        return false;
    };
    let id = leased["notificationId"].as_str().expect("an id");
    let body: Value = json!({"leaseToken": leased["leaseToken"]});
    let answer = rest.post(&format!("{NOTIFICATIONS}/{id}/ack"), &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    true
}

async fn in_sql(pool: PgPool) -> bool {
    let leased: Option<(Uuid, Uuid, String)> = sqlx::query_as(
        "UPDATE notification.deliveries AS d
         SET state = 'leased', due_at = now() + interval '1 minute', lease_token = gen_random_uuid(), attempts = d.attempts + 1
         FROM (SELECT d.notification_id FROM notification.deliveries d
               WHERE d.state = 'ready' AND d.expires_at > now()
               ORDER BY d.created_at, d.notification_id LIMIT 1 FOR UPDATE SKIP LOCKED) AS c
         JOIN notification_live.notifications n USING (notification_id)
         WHERE d.notification_id = c.notification_id
         RETURNING d.notification_id, d.lease_token, n.recipient",
    )
    .fetch_optional(&pool)
    .await
    .expect("leased");
    let Some((id, token, _)) = leased else {
        return false;
    };
    sqlx::query(
        "UPDATE notification.deliveries SET state = 'sent', due_at = NULL
         WHERE notification_id = $1 AND lease_token = $2 AND state IN ('leased', 'ready')",
    )
    .bind(id)
    .bind(token)
    .execute(&pool)
    .await
    .expect("acknowledged");
    true
}
