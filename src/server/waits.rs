//! Reads that demand more than eventual consistency: one layer for all reads of all domains on both surfaces.
//!
//! The layer runs the read and compares what the answer reflects with what is demanded. Where something is missing, it returns
//! the call's permit, waits for the commits that bring it, and runs the read again: a request that waits has neither a permit
//! nor a connection to the database. While the demanded record is known to be missing, the layer runs the read only once, to
//! find out whether it is about a parked key. It waits for as long as the caller said, and at most until shortly before the
//! caller's deadline. The futures before and after the wait are boxed, so that they occupy no memory during it.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::future::try_join_all;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};

use super::surface::{GRPC_STATUS, Surface, overloaded};
use crate::error::{Code, Error, PARKED_KEYS_HEADER, STALE_HEADER};
use crate::proto;
use crate::query::consistency::{Demand, Level, Obstacles, Targets, Unmet};
use crate::query::events::Commits;
use crate::query::replicas::Replicas;
use crate::query::seen::{Seen, observe};
use crate::query::status::ViewStatus;
use crate::query::{MAX_REQUEST_BYTES, Position, Reads, deadline, permit};

/// How many requests may wait at once on a surface. Each holds some kilobytes.
const MAX_WAITING: usize = 20_000;
/// The least pause between two reads of one call, from the second on: after a restore, an announced position may be
/// missing from the database.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// After so long a read that can't be what is demanded yet is run once, because a wait is in vain if it is about a parked key,
/// or one of several records is a dead letter. Not before: most waits are shorter, and calls that come in a burst queue for
/// their permits then, while a new call that finds none is refused.
const CHECK_AFTER: Duration = Duration::from_millis(50);

/// The layer of a surface.
pub struct Waits {
    surface: Surface,
    reads: Reads,
    waiting: Semaphore,
    obstacles: Obstacles,
}

/// Why a demand was not met.
struct Missed {
    error: Error,
    /// The answer that is too old, if there is one already.
    answer: Option<Response>,
}

impl From<Error> for Missed {
    fn from(error: Error) -> Self {
        Self {
            error,
            answer: None,
        }
    }
}

impl Missed {
    /// Whether an answer now is only too old.
    fn is_of_time(&self) -> bool {
        matches!(
            self.error.code(),
            Code::DeadlineExceeded
                | Code::ProjectionStopped
                | Code::PartitionWaits
                | Code::KafkaUnavailable
        )
    }
}

/// A request that may be run several times.
struct Call {
    parts: Parts,
    body: Bytes,
    next: Next,
}

impl Call {
    async fn run(&self) -> Response {
        let body = Body::from(self.body.clone());
        let request = Request::from_parts(self.parts.clone(), body);
        self.next.clone().run(request).await
    }
}

impl Waits {
    /// The layer of a surface.
    pub fn new(surface: Surface, reads: Reads) -> Self {
        let obstacles = Obstacles::new(reads.primary().clone(), reads.settle());
        Self {
            surface,
            reads,
            waiting: Semaphore::new(MAX_WAITING),
            obstacles,
        }
    }

    /// Answers a call with what it demands.
    pub(super) async fn answer(&self, request: Request, next: Next) -> Response {
        let demand = match Demand::of(request.headers()) {
            Ok(demand) => demand,
            Err(error) => return self.surface.refuse(error),
        };
        if demand.level == Level::Eventual {
            let replica = self.reads.replicas().next();
            return match replica.filter(|_| self.domains(&request).is_some()) {
                Some(replica) => Box::pin(self.answer_at_once(replica, request, next)).await,
                None => next.run(request).await,
            };
        }
        let Some(domains) = self.domains(&request) else {
            return self.surface.refuse(unsupported());
        };
        let until = Instant::now() + demand.wait.min(deadline::left_to_wait());
        let call = match buffered(request, next).await {
            Ok(call) => call,
            Err(error) => return self.surface.refuse(error),
        };
        let reached = Box::pin(self.reach(&demand.level, &domains, &call, until)).await;
        match reached {
            Ok(response) => response,
            Err(missed) if demand.serves_stale && missed.is_of_time() => {
                let mut response = match missed.answer {
                    Some(response) => response,
                    None => call.run().await,
                };
                let reason = HeaderValue::from_static(missed.error.code().reason());
                response.headers_mut().insert(STALE_HEADER, reason);
                response
            }
            Err(missed) => self.surface.refuse(missed.error),
        }
    }

    /// The answer that there is now: of a replica, or of the primary where that has none.
    async fn answer_at_once(&self, replica: usize, request: Request, next: Next) -> Response {
        let call = match buffered(request, next).await {
            Ok(call) => call,
            Err(error) => return self.surface.refuse(error),
        };
        let response = self.reads.replicas().on(replica, call.run()).await;
        if self.is_answer(&response) {
            response
        } else {
            call.run().await
        }
    }

    /// Whether a replica has answered: it may be behind the primary, but it has not failed.
    fn is_answer(&self, response: &Response) -> bool {
        match (self.surface, response.headers().get(GRPC_STATUS)) {
            (Surface::Grpc, None) => true,
            (Surface::Grpc, Some(status)) => matches!(
                tonic::Code::from_bytes(status.as_bytes()),
                tonic::Code::Ok | tonic::Code::NotFound | tonic::Code::InvalidArgument
            ),
            (Surface::Rest, _) => matches!(
                response.status(),
                StatusCode::OK
                    | StatusCode::NOT_MODIFIED
                    | StatusCode::NOT_FOUND
                    | StatusCode::BAD_REQUEST
            ),
        }
    }

    /// Runs a call on a replica, if one is fresh. Returns its answer where that is what is demanded.
    async fn try_replica(
        &self,
        targets: &mut Targets,
        domains: &[&'static str],
        call: &Call,
    ) -> Result<Option<(Response, Option<i64>)>, Error> {
        let replicas = self.reads.replicas();
        let Some(replica) = replicas.next().filter(|_| !targets.is_by_age()) else {
            return Ok(None);
        };
        let (response, seen) = replicas.on(replica, observe(call.run())).await;
        let lacks = |seen: &Seen| seen.subject.dead_letter().is_some();
        if seen.is_empty() || seen.iter().any(lacks) || !self.is_answer(&response) {
            return Ok(None);
        }
        // Which logs the views have, unless the replica may lack their rows yet. How far they are is known of the primary only.
        let announcements = &self.reads.work().announcements;
        let logs = targets.reached(announcements, domains).into_keys();
        let logs = logs.filter(|(domain, log_id)| {
            announcements.has_known(domain, *log_id, Replicas::MOST_BEHIND)
        });
        let logs = logs.map(|log| (log, i64::MIN)).collect();
        if !targets.unmet(&self.reads, &seen, &logs).await?.is_empty() {
            return Ok(None);
        }
        let parked = targets.check_dead_letters(&self.obstacles, &seen).await?;
        Ok(Some((response, parked)))
    }

    /// The domains from whose views a call is answered; `None` if it reads no view.
    fn domains(&self, request: &Request) -> Option<Vec<&'static str>> {
        let path = request.uri().path();
        let area = match self.surface {
            Surface::Grpc => {
                let method = proto::method(path).filter(|method| method.reads)?;
                method.path.strip_prefix("/sightline.")?.split('.').next()?
            }
            Surface::Rest => {
                let template = request.extensions().get::<MatchedPath>()?.as_str();
                let is_read = match *request.method() {
                    Method::GET | Method::HEAD => !template.ends_with(":watch"),
                    _ => template.ends_with(":batchGet"),
                };
                let area = path.strip_prefix("/v1/").filter(|_| is_read)?;
                area.split('/').next()?
            }
        };
        // `users` are read from the views of several domains.
        if area == "users" {
            return Some(self.reads.served().to_vec());
        }
        let mut served = self.reads.served().iter();
        served
            .find(|domain| **domain == area)
            .map(|domain| vec![*domain])
    }

    /// Runs a call until its answer is as demanded, or the time is over.
    async fn reach(
        &self,
        level: &Level,
        domains: &[&'static str],
        call: &Call,
        until: Instant,
    ) -> Result<Response, Missed> {
        let announcements = &self.reads.work().announcements;
        let mut targets = Targets::of(&self.reads, level, until.into_std()).await?;
        let has_unseen = targets.has_unseen();
        let mut commits = has_unseen.then(|| Commits::subscribe(&self.reads));
        let check_at = Instant::now() + CHECK_AFTER;
        let (mut has_read, mut parked) = (false, None);
        loop {
            if let Some(commits) = &mut commits {
                commits.mark_seen();
                targets.find_events(&self.reads).await?;
            }
            let now = Instant::now();
            // A process that stops answers what waits, so that nothing keeps it from stopping.
            let is_over = now >= until || self.reads.work().stop.is_cancelled();
            let reached = targets.reached(announcements, domains);
            let mut unmet = match domains {
                [domain] if !is_over => targets.known_unmet(domain, &reached),
                _ => Vec::new(),
            };
            // A read is not run before it can be what is demanded, except once, to find what no wait helps.
            let is_early = !unmet.is_empty() || targets.has_unseen();
            let is_check = !has_read && now >= check_at;
            let mut answer = None;
            if !is_early || is_check || is_over {
                // An answer's positions don't show whether a replica has an event: a retry applies a dead
                // letter without moving them.
                if !is_early && commits.is_none() {
                    let found = Box::pin(self.try_replica(&mut targets, domains, call)).await?;
                    if let Some((response, parked)) = found {
                        return Ok(with_parked_keys(response, parked));
                    }
                }
                let (response, seen) = observe(Box::pin(call.run())).await;
                // It was refused, or failed, before it read anything.
                if seen.is_empty() {
                    return Ok(response);
                }
                self.obstacles.check_parked(&seen).await?;
                unmet = targets.unmet(&self.reads, &seen, &reached).await?;
                let is_met = unmet.is_empty() && !targets.has_unseen();
                let is_first = !std::mem::replace(&mut has_read, true);
                // Of several records, one may be a dead letter while others are still to come.
                if is_met || is_first || is_over {
                    parked = targets.check_dead_letters(&self.obstacles, &seen).await?;
                    if is_met {
                        return Ok(with_parked_keys(response, parked));
                    }
                }
                if is_over {
                    // Also to a caller that does not wait.
                    let hopeless = self.obstacles.check_progress(&unmet).await.err();
                    return Err(Missed {
                        error: hopeless.unwrap_or_else(|| too_late(&seen)),
                        answer: Some(with_parked_keys(response, parked)),
                    });
                }
                // One that was too early is not kept during the wait: thousands may wait.
                answer = (!is_early).then(|| with_parked_keys(response, parked));
                // What was announced and is not there, because the database was restored, is not asked for without a pause.
                if !is_first {
                    sleep(LOOK_PAUSE).await;
                }
            }
            let wake_at = if has_read { until } else { until.min(check_at) };
            let waited = self.wait(&unmet, commits.as_mut(), wake_at).await;
            waited.map_err(|error| Missed { error, answer })?;
        }
    }

    /// Waits until the views may have reached what they lack, or until a point in time.
    async fn wait(
        &self,
        unmet: &[Unmet],
        commits: Option<&mut Commits>,
        until: Instant,
    ) -> Result<(), Error> {
        let _waiting = self.waiting.try_acquire().map_err(|_| overloaded())?;
        let announcements = &self.reads.work().announcements;
        let reached = async {
            if let (Some(commits), []) = (commits, unmet) {
                commits.next().await;
                return Ok(());
            }
            let all = unmet.iter().map(async |lacking: &Unmet| {
                let (domain, log_id) = (&lacking.domain, lacking.log_id);
                let next_offset = lacking.next_offset;
                announcements.reach(domain, log_id, next_offset).await;
                // Of several records, one may become a dead letter while others are still to come.
                if lacking.is_record && unmet.len() > 1 {
                    let checked = self.obstacles.check_record(domain, log_id, next_offset);
                    checked.await?;
                }
                Ok(())
            });
            try_join_all(all).await.map(drop)
        };
        let may_come = async {
            self.obstacles.check_progress(unmet).await?;
            std::future::pending().await
        };
        let wait = Box::pin(async {
            tokio::select! {
                reached = reached => reached,
                stopped = may_come => stopped,
                () = sleep_until(until) => Ok(()),
                () = self.reads.work().stop.cancelled() => Ok(()),
            }
        });
        permit::wait_without_permit(wait).await
    }
}

/// A request with its whole body.
async fn buffered(request: Request, next: Next) -> Result<Call, Error> {
    let (parts, body) = request.into_parts();
    let body = deadline::receive(Limited::new(body, MAX_REQUEST_BYTES).collect()).await?;
    let body = body.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Error::payload_too_large()
        } else {
            Error::invalid("body", "was not received completely")
        }
    })?;
    let body = body.to_bytes();
    Ok(Call { parts, body, next })
}

fn with_parked_keys(mut response: Response, parked: Option<i64>) -> Response {
    if let Some(keys) = parked {
        let headers = response.headers_mut();
        headers.insert(PARKED_KEYS_HEADER, keys.into());
    }
    response
}

/// The error for a view that has not reached in time what is demanded. It has the token that the view has reached.
fn too_late(seen: &[Seen]) -> Error {
    let detail = "The view has not reached what is demanded within the time to wait. Try again, wait longer, or accept an older answer.";
    let error = Error::new(Code::DeadlineExceeded, detail);
    if seen.is_empty() {
        return error.with_retry_after(Duration::from_secs(1));
    }
    let position = Position::of_all(seen.iter().map(|seen| &seen.position));
    let eta = position.status.and_then(|status| status.eta);
    error
        .with_retry_after(ViewStatus::retry_after(eta))
        .with_metadata(position.metadata())
}

/// The refusal of a demand on a call that reads no view.
pub(super) fn unsupported() -> Error {
    let detail = "A consistency can be demanded only of calls that read a domain's view. This call does not read one.";
    Error::new(Code::ConsistencyUnsupported, detail)
}
