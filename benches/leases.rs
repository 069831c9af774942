//! How many notifications a second workers lease and acknowledge, each worker one after the other or in batches, with none and
//! with a million that were sent before. Beside it: the same two statements as one would write them by hand, without HTTP.

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
/// How many a worker leases, and acknowledges, at once.
const BATCHES: [usize; 2] = [1, 50];
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
            for (workers, batch) in WORKERS.iter().flat_map(|w| BATCHES.map(|b| (*w, b))) {
                let row = format!("{sent} sent, {workers} workers, {batch} at once");
                add(&pool, PENDING, "ready").await;
                let rest = running.rest.clone();
                let rate = rate(workers, || over_rest(rest.clone(), batch)).await;
                report.add(&row, "leased and acknowledged/s", rate);
                add(&pool, PENDING, "ready").await;
                let rate = self::rate(workers, || in_sql(by_hand.clone(), batch)).await;
                let row = format!("{row}: {BY_HAND}");
                report.add(&row, "leased and acknowledged/s", rate);
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
async fn rate<W: Future<Output = usize> + Send + 'static>(
    workers: usize,
    mut send: impl FnMut() -> W,
) -> f64 {
    let (mut done, mut tasks) = (0, JoinSet::new());
    let began = Instant::now();
    for _ in 0..workers {
        tasks.spawn(send());
    }
    while let Some(sent) = tasks.join_next().await {
        let sent = sent.expect("no panic");
        done += sent;
        if sent > 0 && began.elapsed() < TIME {
            tasks.spawn(send());
        }
    }
    done as f64 / began.elapsed().as_secs_f64()
}

/// Leases and acknowledges some notifications. How many there were.
async fn over_rest(rest: Rest, batch: usize) -> usize {
    let body = json!({"max": batch, "leaseSeconds": 60});
    let leased = rest.post(&format!("{NOTIFICATIONS}:lease"), &body).await;
    let leased = leased.json();
    let leased = leased["notifications"].as_array().expect("a list");
    let (path, body): (String, Value) = match leased.as_slice() {
        [] => return 0,
        [one] => {
            let id = one["notificationId"].as_str().expect("an id");
            let body = json!({"leaseToken": one["leaseToken"]});
            (format!("{NOTIFICATIONS}/{id}/ack"), body)
        }
        all => {
            let held = all.iter().map(|one| {
                json!({"notificationId": one["notificationId"], "leaseToken": one["leaseToken"]})
            });
            let body = json!({"items": held.collect::<Vec<_>>()});
            (format!("{NOTIFICATIONS}:ack"), body)
        }
    };
    let answer = rest.post(&path, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    leased.len()
}

async fn in_sql(pool: PgPool, batch: usize) -> usize {
    let leased: Vec<(Uuid, Uuid, String)> = sqlx::query_as(
        "UPDATE notification.deliveries AS d
         SET state = 'leased', due_at = now() + interval '1 minute', lease_token = gen_random_uuid(), attempts = d.attempts + 1
         FROM (SELECT d.notification_id FROM notification.deliveries d
               WHERE d.state = 'ready' AND d.expires_at > now()
               ORDER BY d.created_at, d.notification_id LIMIT $1 FOR UPDATE SKIP LOCKED) AS c
         JOIN notification_live.notifications n USING (notification_id)
         WHERE d.notification_id = c.notification_id
         RETURNING d.notification_id, d.lease_token, n.recipient",
    )
    .bind(i64::try_from(batch).expect("small"))
    .fetch_all(&pool)
    .await
    .expect("leased");
    if leased.is_empty() {
        return 0;
    }
    let (ids, tokens): (Vec<Uuid>, Vec<Uuid>) =
        leased.iter().map(|(id, token, _)| (*id, *token)).unzip();
    sqlx::query(
        "UPDATE notification.deliveries d SET state = 'sent', due_at = NULL
         FROM unnest($1, $2) AS l (id, token)
         WHERE d.notification_id = l.id AND d.lease_token = l.token AND d.state IN ('leased', 'ready')",
    )
    .bind(&ids)
    .bind(&tokens)
    .execute(&pool)
    .await
    .expect("acknowledged");
    leased.len()
}
