//! The work queue: workers lease notifications, send them, and settle each lease.
//!
//! Requests for leases wait in line, and a few tasks serve them: each takes all requests that want the same, leases for them
//! together in one statement, and divides what it got in the order of the requests. So many workers cost hardly more than one.
//! Requests that got nothing are tried again when a commit is announced or a lease runs out, and after five seconds in case an
//! announcement was lost. Acknowledgements of one notification each are noted together, too.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use sqlx::PgPool;
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use super::model::{
    Channel, ExtendedLease, LeaseOutcome, LeasedNotification, LeasedNotifications, Notification,
    SettledNotification, SettledNotifications, Status, Template,
};
use super::settings::Settings;
use crate::db;
use crate::error::{Code, Error};
use crate::projector::Projection;
use crate::projector::restores::CheckError;
use crate::query::gather::Gather;
use crate::query::page::ResponseSize;
use crate::query::{self, Answer, Reads, Subject, Work, deadline, permit};

/// How many statements lease at once.
const TASKS: usize = 2;
/// The most notifications that one statement leases.
const MOST: usize = 500;
/// The most notifications that one request leases, or settles.
const MOST_OF_REQUEST: i32 = 100;
/// The longest reason of a failure, in characters.
const MAX_REASON: usize = 500;
/// So many requests for leases may wait without a permit to run: each takes some kilobytes.
const MOST_WITHOUT_PERMIT: usize = 20_000;
/// How long it may take to lease for requests that are served together, or to give leases back. If the answer of a statement
/// that leases is lost, its leases run out.
const DEADLINE: Duration = Duration::from_secs(10);
/// A request that waits is tried again after so long, whatever was announced.
const SAFETY_NET: Duration = Duration::from_secs(5);
/// The part of a caller's time that is left for the answer when the wait ends.
const ANSWERING: Duration = Duration::from_millis(500);

/// What a worker asks for.
#[derive(Debug, Clone)]
pub struct LeaseRequest {
    /// How many notifications at most: 1 to 100.
    pub max: i32,
    /// For how long, in seconds: 5 to 3,600.
    pub lease_seconds: i32,
    /// Only of these templates; of all if there are none.
    pub templates: Vec<Template>,
    /// How long to wait, in seconds, if there is nothing: 0 to 20. The wait ends earlier where the caller's time is shorter.
    pub wait_seconds: i32,
}

/// A notification, and the lease under which it is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HeldNotification {
    /// The notification's id.
    pub notification_id: Uuid,
    /// The token of the lease.
    pub lease_token: Uuid,
}

impl HeldNotification {
    /// A notification that a worker holds, as a request names it: `prefix` is where the request has its fields.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: one of the two is not a UUID. The error names it.
    pub fn of(prefix: &str, notification_id: &str, lease_token: &str) -> Result<Self, Error> {
        Ok(Self {
            notification_id: query::uuid(&format!("{prefix}notificationId"), notification_id)?,
            lease_token: query::uuid(&format!("{prefix}leaseToken"), lease_token)?,
        })
    }

    /// Those of a batch, which names them, by id and token, in `items`.
    ///
    /// # Errors
    /// As [`HeldNotification::of`], of the first that is wrong.
    pub fn all(items: impl Iterator<Item = (String, String)>) -> Result<Vec<Self>, Error> {
        let items = items.enumerate();
        items
            .map(|(i, (id, token))| Self::of(&format!("items[{i}]."), &id, &token))
            .collect()
    }
}

/// A notification that could not be sent.
#[derive(Debug, Clone)]
pub struct FailedNotification {
    held: HeldNotification,
    reason: String,
}

impl FailedNotification {
    /// A notification that could not be sent, for a reason of 1 to 500 characters, which a request has in `field`.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: the reason is too long or blank, or contains U+0000. The error names `field`.
    pub fn new(held: HeldNotification, field: &str, reason: String) -> Result<Self, Error> {
        if reason.trim().is_empty() {
            return Err(Error::invalid(field, "must not be blank"));
        }
        if reason.chars().nth(MAX_REASON).is_some() {
            let problem = format!("must be at most {MAX_REASON} characters long");
            return Err(Error::invalid(field, problem));
        }
        if reason.contains('\0') {
            return Err(Error::invalid(field, "must not contain U+0000"));
        }
        Ok(Self { held, reason })
    }

    /// Those of a batch, which names them, by id, token and reason, in `items`.
    ///
    /// # Errors
    /// As [`HeldNotification::of`] and [`FailedNotification::new`], of the first that is wrong.
    pub fn all(items: impl Iterator<Item = (String, String, String)>) -> Result<Vec<Self>, Error> {
        let items = items.enumerate();
        items
            .map(|(i, (id, token, reason))| {
                let prefix = format!("items[{i}].");
                let held = HeldNotification::of(&prefix, &id, &token)?;
                Self::new(held, &format!("{prefix}reason"), reason)
            })
            .collect()
    }
}

/// Requests for leases, and what settles them. One for each surface.
pub struct Queue {
    settings: Settings,
    /// The domain's projection. After a restore, its `on_restore` stores how far the lost state of the database had come.
    projection: &'static dyn Projection,
    /// Which server's state was compared with Kafka's offsets.
    server: Mutex<Option<String>>,
    lines: Mutex<Lines>,
    /// Notified where a line is to be served.
    has_work: Notify,
    /// Notified where a request has joined a line, whose deadline may be the next one.
    has_joined: Notify,
    started: Once,
    /// Acknowledgements of one notification each.
    acknowledgements: OnceLock<Gather<HeldNotification, SettledNotification>>,
}

/// What requests in one line have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    /// Sorted; empty for all.
    templates: Vec<Template>,
    lease_seconds: i32,
}

/// Requests that wait, by kind.
#[derive(Default)]
struct Lines {
    waiting: HashMap<Kind, VecDeque<Waiting>>,
    /// Lines to be served, each once.
    to_serve: VecDeque<Kind>,
    /// How often all lines were to be served: requests that a task was serving meanwhile are served again.
    rounds: u64,
    /// When the next lease or pause ends, as far as it is known.
    next_due: Option<Instant>,
    /// Whether the process stops: requests are answered at once.
    is_stopping: bool,
}

struct Waiting {
    max: usize,
    until: Instant,
    answer: oneshot::Sender<Result<Answer<LeasedNotifications>, Error>>,
}

impl Lines {
    fn serve(&mut self, kind: &Kind) {
        if !self.to_serve.contains(kind) {
            self.to_serve.push_back(kind.clone());
        }
    }

    fn serve_all(&mut self) {
        self.rounds += 1;
        let kinds: Vec<Kind> = self.waiting.keys().cloned().collect();
        for kind in &kinds {
            self.serve(kind);
        }
    }

    /// The next line to serve, the requests at its head, and the round.
    fn take(&mut self) -> Option<(Kind, Vec<Waiting>, u64)> {
        while let Some(kind) = self.to_serve.pop_front() {
            let Some(mut line) = self.waiting.remove(&kind) else {
                continue;
            };
            let (mut taken, mut wanted) = (Vec::new(), 0);
            while let Some(request) = line.pop_front() {
                // A caller that is gone gets nothing.
                if request.answer.is_closed() {
                    continue;
                }
                if wanted > 0 && wanted + request.max > MOST {
                    line.push_front(request);
                    break;
                }
                wanted += request.max;
                taken.push(request);
            }
            if !line.is_empty() {
                self.waiting.insert(kind.clone(), line);
                self.serve(&kind);
            }
            if !taken.is_empty() {
                return Some((kind, taken, self.rounds));
            }
        }
        None
    }

    /// Puts requests back to the head of their line, which were taken in a round.
    fn put_back(&mut self, kind: &Kind, requests: Vec<Waiting>, round: u64) {
        if self.rounds != round {
            self.serve(kind);
        }
        let line = self.waiting.entry(kind.clone()).or_default();
        for request in requests.into_iter().rev() {
            line.push_front(request);
        }
    }

    /// When a request is to be tried again if nothing is announced; `None` while none waits.
    fn next_try(&self) -> Option<Instant> {
        let untils = self.waiting.values().flatten().map(|request| request.until);
        let first = untils.min()?;
        let net = Instant::now() + SAFETY_NET;
        Some(first.min(self.next_due.unwrap_or(net)).min(net))
    }
}

/// What one statement has leased.
struct Leased {
    notifications: VecDeque<LeasedNotification>,
    /// An answer without notifications.
    nothing: Answer<LeasedNotifications>,
    next_due: Option<Instant>,
}

/// A row of a lease: a notification, if there was one, and what is the same in all rows.
struct LeaseRow {
    notification_id: Option<Uuid>,
    event_id: Option<String>,
    user_id: Option<String>,
    template: Option<String>,
    recipient: Option<String>,
    data: Option<String>,
    attempts: Option<i32>,
    created_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
    last_error: Option<String>,
    lease_token: Option<Uuid>,
    due_at: Option<DateTime<Utc>>,
    is_held: bool,
    is_unknown: bool,
    server: String,
    next_due_seconds: Option<f64>,
    ready: bool,
    logs: Vec<i32>,
    offsets: Vec<i64>,
}

impl LeaseRow {
    /// The notification, if there was one. One whose template only a newer release knows is left to that.
    fn leased(self) -> Option<Result<LeasedNotification, sqlx::Error>> {
        let data = match db::of_document(&self.data?, "notifications") {
            Ok(data) => data,
            Err(error) => return Some(Err(error)),
        };
        let notification = Notification {
            notification_id: self.notification_id?,
            event_id: self.event_id?,
            user_id: self.user_id?,
            template: Template::named(&self.template?)?,
            recipient: self.recipient,
            channel: Channel::Email,
            data: Some(data),
            status: Status::Leased,
            attempts: self.attempts?,
            created_at: self.created_at?,
            expires_at: self.expires_at?,
            last_error: self.last_error,
        };
        Some(Ok(LeasedNotification {
            notification,
            lease_token: self.lease_token?,
            leased_until: self.due_at?,
        }))
    }
}

impl Queue {
    /// A queue without requests.
    pub fn new(settings: Settings, projection: &'static dyn Projection) -> Arc<Self> {
        Arc::new(Self {
            settings,
            projection,
            server: Mutex::default(),
            lines: Mutex::default(),
            has_work: Notify::new(),
            has_joined: Notify::new(),
            started: Once::new(),
            acknowledgements: OnceLock::new(),
        })
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leases notifications, oldest first.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: a number is out of range. LEASING_HELD: the database was restored, and no operator has resumed the
    /// domain. KAFKA_UNAVAILABLE: it is not known whether the database was restored. The database failed.
    pub async fn lease(
        self: &Arc<Self>,
        reads: &Reads,
        request: LeaseRequest,
    ) -> Result<Answer<LeasedNotifications>, Error> {
        check_range("max", request.max, 1, MOST_OF_REQUEST)?;
        check_lease_seconds(request.lease_seconds)?;
        check_range("waitSeconds", request.wait_seconds, 0, 20)?;
        self.started.call_once(|| self.start(reads));
        let mut templates = request.templates;
        templates.sort_unstable();
        templates.dedup();
        let kind = Kind {
            templates,
            lease_seconds: request.lease_seconds,
        };
        let wait = Duration::from_secs(request.wait_seconds.unsigned_abs().into());
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            max: request.max.unsigned_abs() as usize,
            until: Instant::now() + wait.min(deadline::left().saturating_sub(ANSWERING)),
            answer,
        };
        {
            let mut lines = self.lines();
            lines
                .waiting
                .entry(kind.clone())
                .or_default()
                .push_back(waiting);
            lines.serve(&kind);
            // What is left to do once there is an answer is little.
            if lines.waiting.values().map(VecDeque::len).sum::<usize>() < MOST_WITHOUT_PERMIT {
                permit::leave();
            }
        }
        self.has_work.notify_one();
        let answer = answered.await;
        answer.unwrap_or_else(|_| Err(Error::internal("a request for a lease was dropped")))
    }

    fn start(self: &Arc<Self>, reads: &Reads) {
        for _ in 0..TASKS {
            tokio::spawn(Arc::clone(self).serve_lines(reads.clone()));
        }
        tokio::spawn(Arc::clone(self).watch(reads.work().clone()));
    }

    /// Lets lines be served when there may be something for them.
    async fn watch(self: Arc<Self>, work: Work) {
        let mut commits = work.announcements.subscribe("notification");
        while !work.stop.is_cancelled() {
            let next_try = self.lines().next_try();
            let time = async {
                match next_try {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = commits.changed() => {}
                () = time => {}
                () = work.stop.cancelled() => {}
                // There is a new deadline.
                () = self.has_joined.notified() => continue,
            }
            {
                let mut lines = self.lines();
                lines.next_due = None;
                lines.is_stopping = work.stop.is_cancelled();
                lines.serve_all();
            }
            self.has_work.notify_waiters();
            self.has_work.notify_one();
        }
    }

    async fn serve_lines(self: Arc<Self>, reads: Reads) {
        loop {
            let taken = self.lines().take();
            let Some((kind, requests, round)) = taken else {
                self.has_work.notified().await;
                continue;
            };
            let wanted = requests.iter().map(|request| request.max).sum();
            match db::within(DEADLINE, self.lease_some(&reads, &kind, wanted)).await {
                Ok(leased) => self.divide(&reads, &kind, requests, round, leased).await,
                Err(error) => {
                    for request in requests {
                        drop(request.answer.send(Err(error.clone())));
                    }
                }
            }
        }
    }

    /// Answers requests with what was leased for them. Those that get nothing wait on.
    async fn divide(
        &self,
        reads: &Reads,
        kind: &Kind,
        requests: Vec<Waiting>,
        round: u64,
        leased: Leased,
    ) {
        let Leased {
            mut notifications,
            nothing,
            next_due,
        } = leased;
        let (mut unserved, mut served) = (Vec::new(), Vec::new());
        let is_stopping = self.lines().is_stopping;
        for request in requests {
            if notifications.is_empty() && request.until > Instant::now() && !is_stopping {
                unserved.push(request);
            } else {
                let share = take_some(&mut notifications, request.max);
                served.push((request, share));
            }
        }
        // What did not fit into the answers is given back before they are sent: their workers may ask for more at once.
        give_back(reads, notifications.make_contiguous()).await;
        let mut unwanted = Vec::new();
        for (request, notifications) in served {
            let answer = Answer {
                body: LeasedNotifications { notifications },
                position: nothing.position.clone(),
            };
            // The caller is gone.
            if let Err(Ok(answer)) = request.answer.send(Ok(answer)) {
                unwanted.extend(answer.body.notifications);
            }
        }
        give_back(reads, &unwanted).await;
        if !unserved.is_empty() {
            let mut lines = self.lines();
            lines.put_back(kind, unserved, round);
            lines.next_due = match (lines.next_due, next_due) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            drop(lines);
            self.has_joined.notify_one();
        }
    }

    async fn lease_some(&self, reads: &Reads, kind: &Kind, wanted: usize) -> Result<Leased, Error> {
        let mut has_checked = false;
        loop {
            let server = self
                .server
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let templates: Vec<&str> = kind.templates.iter().map(|t| t.as_str()).collect();
            let rows = sqlx::query_file_as!(
                LeaseRow,
                "src/domains/notification/sql/lease.sql",
                i64::try_from(wanted).unwrap_or(i64::MAX),
                f64::from(kind.lease_seconds),
                Some(templates).filter(|templates| !templates.is_empty()) as _,
                server,
            )
            .fetch_all(&reads.work().pool)
            .await
            .map_err(|error| Error::from(error).in_statement("notification/lease"))?;
            let Some(first) = rows.first() else {
                return Err(Error::internal("the notification domain is not set up"));
            };
            if first.is_held {
                return Err(held());
            }
            if first.is_unknown {
                if std::mem::replace(&mut has_checked, true) {
                    return Err(Error::internal("the database server changes all the time"));
                }
                let checked = reads.work().restores.check(self.projection).await;
                checked.map_err(unchecked)?;
                let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
                *server = Some(first.server.clone());
                continue;
            }
            let position = reads
                .position(
                    "notification",
                    &first.logs,
                    &first.offsets,
                    first.ready,
                    Subject::Many,
                )
                .await?;
            let next_due = first.next_due_seconds.map(|seconds| {
                Instant::now() + Duration::try_from_secs_f64(seconds).unwrap_or_default()
            });
            return Ok(Leased {
                notifications: rows
                    .into_iter()
                    .filter_map(LeaseRow::leased)
                    .collect::<Result<_, _>>()?,
                nothing: Answer {
                    body: LeasedNotifications::default(),
                    position,
                },
                next_due,
            });
        }
    }

    /// Notes that a worker has sent notifications.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: there are too many or no items, or one twice. The database failed.
    pub async fn acknowledge(
        &self,
        reads: &Reads,
        items: &[HeldNotification],
    ) -> Result<SettledNotifications, Error> {
        check_items(items)?;
        let pool = &reads.work().pool;
        let outcomes = match items {
            [one] => {
                let shared = self.acknowledgements.get_or_init(|| {
                    let pool = pool.clone();
                    Gather::new(move |items| {
                        db::for_callers(acknowledge(pool.clone(), items)).boxed()
                    })
                });
                vec![shared.ask(*one).await?]
            }
            items => acknowledge(pool.clone(), items.to_vec()).await?,
        };
        Ok(SettledNotifications { outcomes })
    }

    /// Notes that a worker could not send notifications.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: there are too many or no items, or one twice. The database failed.
    pub async fn fail(
        &self,
        reads: &Reads,
        items: &[FailedNotification],
    ) -> Result<SettledNotifications, Error> {
        let held: Vec<HeldNotification> = items.iter().map(|item| item.held).collect();
        check_items(&held)?;
        let (ids, tokens) = columns(&held);
        let reasons: Vec<&str> = items.iter().map(|item| item.reason.as_str()).collect();
        let rows = sqlx::query_file_as!(
            SettledRow,
            "src/domains/notification/sql/fail.sql",
            &ids,
            &tokens,
            &reasons as _,
            self.settings.max_attempts,
            self.settings.backoff.as_secs_f64(),
        )
        .fetch_all(&reads.work().pool)
        .await
        .map_err(|error| Error::from(error).in_statement("notification/fail"))?;
        // Waiting requests learn from it when the pause is over.
        reads.work().announcements.announce("notification");
        Ok(SettledNotifications {
            outcomes: rows.into_iter().map(SettledRow::outcome).collect(),
        })
    }
}

/// Takes as many notifications as one answer may hold, and `max` at most.
fn take_some(
    notifications: &mut VecDeque<LeasedNotification>,
    max: usize,
) -> Vec<LeasedNotification> {
    let mut size = ResponseSize::default();
    let fitting = notifications
        .iter()
        .take(max)
        .take_while(|next| size.add(*next).is_ok_and(|fits| fits))
        .count();
    notifications.drain(..fitting).collect()
}

/// Gives leases back, if there are any, of which no worker knows.
async fn give_back(reads: &Reads, leased: &[LeasedNotification]) {
    if leased.is_empty() {
        return;
    }
    let ids: Vec<Uuid> = leased
        .iter()
        .map(|one| one.notification.notification_id)
        .collect();
    let tokens: Vec<Uuid> = leased.iter().map(|one| one.lease_token).collect();
    let given = sqlx::query_file!("src/domains/notification/sql/give_back.sql", &ids, &tokens)
        .execute(&reads.work().pool);
    match db::within(DEADLINE, given).await {
        Ok(_) => reads.work().announcements.announce("notification"),
        // They run out.
        Err(error) => {
            let error = db::describe(&error);
            tracing::debug!(
                error,
                "leases of which no worker knows could not be given back"
            );
        }
    }
}

/// Notes that notifications were sent. Some may be named twice, under different leases.
async fn acknowledge(
    pool: PgPool,
    items: Vec<HeldNotification>,
) -> Result<Vec<SettledNotification>, Error> {
    let (ids, tokens) = columns(&items);
    let rows = sqlx::query_file_as!(
        SettledRow,
        "src/domains/notification/sql/acknowledge.sql",
        &ids,
        &tokens
    )
    .fetch_all(&pool)
    .await
    .map_err(|error| Error::from(error).in_statement("notification/acknowledge"))?;
    Ok(rows.into_iter().map(SettledRow::outcome).collect())
}

/// Extends a lease.
///
/// # Errors
/// INVALID_ARGUMENT: the time is out of range. NOT_FOUND: of the notification. LEASE_LOST or NOTIFICATION_CANCELLED: the worker
/// no longer holds it. The database failed.
pub async fn extend(
    reads: &Reads,
    held: &HeldNotification,
    lease_seconds: i32,
) -> Result<ExtendedLease, Error> {
    check_lease_seconds(lease_seconds)?;
    let row = sqlx::query_file!(
        "src/domains/notification/sql/extend.sql",
        held.notification_id,
        held.lease_token,
        f64::from(lease_seconds)
    )
    .fetch_optional(&reads.work().pool)
    .await
    .map_err(|error| Error::from(error).in_statement("notification/extend"))?;
    match row {
        None => Err(Error::not_found("notification")),
        Some(row) => match row.leased_until {
            Some(leased_until) => Ok(ExtendedLease { leased_until }),
            None if row.state == "cancelled" => Err(cancelled()),
            None => Err(lost()),
        },
    }
}

/// The outcome of a request for one notification.
///
/// # Errors
/// NOT_FOUND: of the notification. LEASE_LOST or NOTIFICATION_CANCELLED: the worker no longer holds it.
pub fn single(outcomes: SettledNotifications) -> Result<SettledNotification, Error> {
    let settled = outcomes.outcomes.into_iter().next();
    let settled = settled.ok_or_else(|| Error::internal("a request without an outcome"))?;
    match settled.outcome {
        LeaseOutcome::Ok => Ok(settled),
        LeaseOutcome::Lost => Err(lost()),
        LeaseOutcome::Cancelled => Err(cancelled()),
        LeaseOutcome::NotFound => Err(Error::not_found("notification")),
    }
}

fn lost() -> Error {
    Error::new(
        Code::LeaseLost,
        "The lease has ended, and the notification has expired or was given to another worker, or it was settled under the lease before.",
    )
}

fn cancelled() -> Error {
    Error::new(
        Code::NotificationCancelled,
        "The notification was cancelled, because its user was deleted.",
    )
}

fn held() -> Error {
    Error::new(
        Code::LeasingHeld,
        "The database was restored to an earlier state, which does not know what was sent since. Nothing is leased until an operator \
         resumes the domain.",
    )
}

fn unchecked(error: CheckError) -> Error {
    match error {
        CheckError::Database(error) => Error::from(error),
        CheckError::Kafka(error) => {
            tracing::debug!(%error, "it is not known whether the database was restored");
            Error::new(
                Code::KafkaUnavailable,
                "Kafka does not say whether the database was restored to an earlier state, so nothing is leased yet.",
            )
            .with_retry_after(Duration::from_secs(2))
        }
    }
}

/// What a statement returns of a notification that a worker settles. There is no state if there is no such notification.
struct SettledRow {
    notification_id: Uuid,
    /// The state of the delivery before.
    state: Option<String>,
    /// Whether the worker's lease was the last one.
    is_last: Option<bool>,
    /// The state since.
    state_since: Option<String>,
}

impl SettledRow {
    fn outcome(self) -> SettledNotification {
        let outcome = match (self.state.as_deref(), self.is_last) {
            (None, _) => LeaseOutcome::NotFound,
            (Some("cancelled"), _) => LeaseOutcome::Cancelled,
            (Some(_), Some(true)) => LeaseOutcome::Ok,
            (Some(_), _) => LeaseOutcome::Lost,
        };
        let status = self.state_since.map(|state| match state.as_str() {
            "leased" => Status::Leased,
            "sent" => Status::Sent,
            "failed" => Status::Failed,
            "cancelled" => Status::Cancelled,
            "expired" => Status::Expired,
            "held" => Status::NoRecipient,
            _ => Status::Pending,
        });
        SettledNotification {
            notification_id: self.notification_id,
            outcome,
            status,
        }
    }
}

fn check_items(items: &[HeldNotification]) -> Result<(), Error> {
    if items.is_empty() || items.len() > MOST_OF_REQUEST.unsigned_abs() as usize {
        let problem = format!("must have 1 to {MOST_OF_REQUEST} entries");
        return Err(Error::invalid("items", problem));
    }
    let ids: HashSet<Uuid> = items.iter().map(|item| item.notification_id).collect();
    if ids.len() < items.len() {
        return Err(Error::invalid("items", "must name each notification once"));
    }
    Ok(())
}

/// Ids and tokens, column by column.
fn columns(items: &[HeldNotification]) -> (Vec<Uuid>, Vec<Uuid>) {
    let columns = items
        .iter()
        .map(|item| (item.notification_id, item.lease_token));
    columns.unzip()
}

fn check_lease_seconds(seconds: i32) -> Result<(), Error> {
    check_range("leaseSeconds", seconds, 5, 3_600)
}

fn check_range(field: &str, value: i32, min: i32, max: i32) -> Result<(), Error> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid(field, format!("must be {min} to {max}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00000000-0000-4000-8000-000000000000";

    #[test]
    fn wrong_ids_are_named_where_they_are() {
        for (prefix, id, token, named) in [
            ("items[2].", "x", ID, "items[2].notificationId"),
            ("items[2].", ID, "", "items[2].leaseToken"),
            ("", "x", "x", "notificationId"),
        ] {
            let error = HeldNotification::of(prefix, id, token).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
            assert_eq!(error.fields()[0].field, named);
        }
    }

    #[test]
    fn reasons_are_measured_in_characters() {
        let fail = |reason: &str| {
            let held = HeldNotification::of("", ID, ID).unwrap();
            FailedNotification::new(held, "items[0].reason", reason.to_owned())
        };
        for reason in ["x", &"é".repeat(MAX_REASON)] {
            assert!(fail(reason).is_ok());
        }
        for reason in ["", " \n", "a\0b", &"é".repeat(MAX_REASON + 1)] {
            assert_eq!(
                fail(reason).unwrap_err().fields()[0].field,
                "items[0].reason"
            );
        }
    }
}
