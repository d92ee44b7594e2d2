//! One call that has been read, tried at deployments until one answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::Response;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use http::{Method, Response as HttpResponse};
use hyper::body::Incoming;

use super::attempt::{Failure, First, Refusal, Tried};
use super::error::RelayError;
use super::record::CallRecord;
use super::upstream::Upstream;
use super::{Relay, fallback, pace, reading};
use crate::config;
use crate::gateway::deployment::{Deployment, MarkReason};
use crate::gateway::event::{Attempt, Kind};
use crate::gateway::identity::Identity;
use crate::gateway::pacing::monitor::{HEADER, read_header};
use crate::gateway::plan::{Caller, GiveUp, Plan, Step};
use crate::gateway::pool::{ModelPool, hash_key};
use crate::gateway::ptu::Utilization;
use crate::gateway::route::{Operation, Route};
use crate::gateway::spillover::Spillover;
use crate::gateway::strategy::HashOn;

/// A call that has been read.
pub(super) struct Call<'a> {
    pub(super) relay: &'a Arc<Relay>,
    pub(super) upstream: &'a Upstream,
    pub(super) route: Route<'a>,
    pub(super) method: Method,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Bytes,
    pub(super) reading: reading::Reading<'a>,
    pub(super) caller: Identity,
    pub(super) model: Arc<ModelPool>,
    /// The backend that owns what the call names.
    pub(super) pinned: Option<Arc<str>>,
    /// The backends among which it has its place where it has no owner and names no model; none: all.
    pub(super) homes: Vec<Arc<str>>,
    /// The one kind of deployment that it goes to; `None`: any.
    pub(super) only: Option<Kind>,
    /// Whether whoever makes the call holds its slot, or has it go where it needs none.
    pub(super) is_paced: bool,
    pub(super) patience: Patience,
    pub(super) started: Instant,
}

/// How long a call waits for its answer to begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Each attempt, ms.
    pub(super) first_byte_ms: u64,
    /// The call, from its arrival on, ms.
    pub(super) deadline_ms: u64,
}

impl Patience {
    /// That of a call whose client waits for it.
    pub(super) const fn of_client(gateway: &config::Gateway) -> Self {
        Self {
            first_byte_ms: gateway.first_byte_timeout_ms,
            deadline_ms: gateway.deadline_ms,
        }
    }

    /// That of a call that is made for somebody who does not wait: no front end cuts it, and as it is not
    /// streamed its first byte comes when all of it is generated.
    pub(super) const fn of_batch(gateway: &config::Gateway) -> Self {
        Self {
            first_byte_ms: gateway.batch_timeout_ms,
            deadline_ms: gateway.batch_timeout_ms,
        }
    }
}

/// An attempt that brought an answer.
pub(super) struct Answered {
    pub(super) deployment: Arc<Deployment>,
    /// Who answered in its place.
    pub(super) spillover: Option<Spillover>,
    pub(super) response: HttpResponse<Incoming>,
    pub(super) first: First,
    pub(super) attempts: usize,
    /// The model that answered.
    pub(super) model: Arc<str>,
}

impl Call<'_> {
    /// Tries deployments until one answers.
    pub(super) async fn run(&mut self, mut record: CallRecord) -> (CallEnd, Option<CallRecord>) {
        let mut substitutes = fallback::Progress::default();
        let mut first = None;
        let ended = loop {
            let ended = self.answer(&mut record, substitutes.has_begun()).await;
            let Some(model) = substitutes.next(self, &ended, &record) else {
                break ended;
            };
            record.in_flight = None;
            first.get_or_insert(ended);
            self.model = model;
        };
        // Where no other could serve either, the client hears of the model that it asked for.
        let ended = match (ended, first) {
            (Err(_), Some(first)) => first,
            (ended, _) => ended,
        };
        match ended {
            Ok(answered) => (CallEnd::Answer(self.pass_on(answered, record)), None),
            Err(error) => (CallEnd::Error(error), Some(record)),
        }
    }

    pub(super) async fn answer(
        &self,
        record: &mut CallRecord,
        is_substitute: bool,
    ) -> Result<Answered, RelayError> {
        let settings = &self.relay.settings;
        let mut limits = settings.limits;
        limits.deadline_ms = self.patience.deadline_ms;
        if is_substitute {
            pace::take_slot(self, record).await?;
            let waited_ms = record.now().ms_since(record.event.time);
            limits.wait_budget_ms = limits.wait_budget_ms.saturating_sub(waited_ms);
        }
        let mut plan = Plan::new(record.event.time);
        let mut random = fastrand::Rng::new();
        let mut refused: Option<(Arc<Deployment>, Refusal)> = None;
        let caller = Caller {
            app: Some(&self.caller.app),
            priority: record.event.priority,
            only: self.only,
            pinned: self.pinned.as_deref(),
            homes: &self.homes,
            region: settings.gateway.region.as_deref(),
            hash: self.hash(),
        };
        loop {
            let now = record.now();
            let step = plan.next(&self.model, &caller, &limits, now, &mut random);
            record.passed_ptu |= plan.passed_ptu();
            match step {
                Step::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                Step::GiveUp(why) => {
                    // Where one is only full, the call may go there later.
                    let is_later = matches!(why, GiveUp::AllThrottled { .. });
                    if let Some((deployment, refusal)) = refused.take().filter(|_| !is_later) {
                        let (response, first) = *refusal;
                        return Ok(self.answered(deployment, None, response, first, record));
                    }
                    return Err(no_answer(why, record));
                }
                Step::Try(deployment) => {
                    record.begin(deployment.enter());
                    let left_ms = limits
                        .deadline_ms
                        .saturating_sub(now.ms_since(record.event.time));
                    let begun = Instant::now();
                    let tried = self.attempt(&deployment, left_ms, record).await?;
                    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                    let spillover = spillover_of(&deployment, &tried);
                    let after_ms = now.ms_since(record.event.time);
                    let noted = note(&deployment, &tried, after_ms, ms);
                    match &spillover {
                        Some(spillover) => {
                            let attempts = spillover.attempts(noted).into_iter();
                            attempts.for_each(|attempt| record.attempt(attempt));
                        }
                        None => record.attempt(noted),
                    }
                    self.note_utilization(&deployment, &tried, spillover.as_ref());
                    match tried {
                        Ok((response, first)) => {
                            let us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                            // Another one's speed is not its own.
                            if spillover.is_none() {
                                deployment.succeeded(us);
                            }
                            let answered =
                                self.answered(deployment, spillover, response, first, record);
                            return Ok(answered);
                        }
                        Err(failure) => {
                            record.in_flight = None;
                            self.mark(&deployment, &failure, record);
                            plan.failed(&self.model, &deployment, failure.reason);
                            if failure.may_be_done && self.makes_something() {
                                return Err(no_answer(GiveUp::AllFailed, record));
                            }
                            let refusal = failure.refusal.map(|refusal| (deployment, refusal));
                            refused = refused.or(refusal);
                        }
                    }
                }
            }
        }
    }

    fn answered(
        &self,
        deployment: Arc<Deployment>,
        spillover: Option<Spillover>,
        response: HttpResponse<Incoming>,
        first: First,
        record: &CallRecord,
    ) -> Answered {
        Answered {
            deployment,
            spillover,
            response,
            first,
            attempts: record.event.attempts.len(),
            model: Arc::clone(self.model.name()),
        }
    }

    /// Tells the gauge what the answer of a provisioned deployment says of how full it is: the header,
    /// a 429, or that another one answered. It is not marked for that: a call to it is answered all the
    /// same, and by itself as soon as it has room.
    fn note_utilization(
        &self,
        deployment: &Deployment,
        tried: &Tried,
        spillover: Option<&Spillover>,
    ) {
        let spec = &deployment.spec;
        if spec.kind != Kind::Ptu {
            return;
        }
        let said = match tried {
            _ if spillover.is_some_and(Spillover::was_full) => Some(Utilization::FULL),
            Ok((response, _)) => {
                let value = response.headers().get(HEADER).and_then(|v| v.to_str().ok());
                value.and_then(read_header)
            }
            Err(failure) => (failure.status == Some(429)).then_some(Utilization::FULL),
        };
        if let Some(said) = said {
            let now = self.relay.clock.now();
            self.relay
                .slots
                .gauge()
                .saw(&spec.backend, &spec.name, said, now);
        }
    }

    /// Whether a model's deployment is asked to generate something. Whatever else names a model is about things
    /// that lie on a backend.
    pub(super) fn generates(&self) -> bool {
        let is_session = self.route.operation == Operation::Realtime;
        let is_asked = is_session || self.method == Method::POST && self.route.generates();
        is_asked && !self.model.name().is_empty()
    }

    /// Whether it makes or changes what lies on a backend. Made once more at another one it would be there twice,
    /// the second time where its app's other things are not.
    fn makes_something(&self) -> bool {
        !self.generates() && !self.method.is_idempotent()
    }

    fn mark(&self, deployment: &Deployment, failure: &Failure, record: &CallRecord) {
        let Some(mark_ms) = failure.mark_ms else {
            return;
        };
        // It says nothing of how the model's deployment answers those who ask it to generate something.
        if !self.generates() && !self.model.name().is_empty() {
            return;
        }
        let mark = deployment.set_mark(failure.reason, mark_ms, record.now());
        let backend = &*deployment.spec.backend;
        let name = &*deployment.spec.name;
        let reason = failure.reason.as_str();
        let ms = mark.until.ms_since(record.now());
        let (status, error) = (failure.status, failure.error);
        match failure.reason {
            MarkReason::Throttled => {
                tracing::debug!(
                    request_id = record.event.id,
                    trace_id = record.event.trace_digits(),
                    backend,
                    deployment = name,
                    reason,
                    ms,
                    status,
                    "marked"
                );
            }
            MarkReason::Failed => {
                tracing::warn!(
                    request_id = record.event.id,
                    trace_id = record.event.trace_digits(),
                    backend,
                    deployment = name,
                    reason,
                    ms,
                    status,
                    error,
                    "marked"
                );
            }
            MarkReason::Misconfigured => tracing::error!(
                request_id = record.event.id,
                trace_id = record.event.trace_digits(),
                backend,
                deployment = name,
                reason,
                ms,
                status,
                error,
                "marked: the backend refuses the gateway, or there is no token for it; check its key or the gateway's identity, and the deployment's name"
            ),
        }
    }

    fn hash(&self) -> u64 {
        let prompt = self.reading.prompt();
        match &self.model.selection().hash_on {
            HashOn::Caller => hash_key(self.caller.app.name.as_bytes()),
            // Azure's prompt caches go by the first 1,024 tokens, some four bytes each.
            HashOn::Prompt => hash_key(prompt.get(..4096).unwrap_or(prompt)),
            HashOn::Header(name) => {
                let value = self.headers.get(name.as_str()).map(HeaderValue::as_bytes);
                hash_key(value.unwrap_or(self.caller.app.name.as_bytes()))
            }
        }
    }
}

/// How a call ended for its client.
pub(super) enum CallEnd {
    Answer(Response),
    Error(RelayError),
}

fn no_answer(why: GiveUp, record: &CallRecord) -> RelayError {
    let attempts = record.event.attempts.clone();
    RelayError::NoAnswer { why, attempts }
}

/// Whose answer that of a provisioned deployment is, where it is not its own.
fn spillover_of(deployment: &Deployment, tried: &Tried) -> Option<Spillover> {
    let (response, _) = tried.as_ref().ok()?;
    if deployment.spec.kind != Kind::Ptu || !response.status().is_success() {
        return None;
    }
    let headers = response.headers().iter();
    let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes()));
    Spillover::read(&deployment.spec.name, headers)
}

fn note(deployment: &Deployment, tried: &Tried, after_ms: u64, ms: u64) -> Attempt {
    let (status, error) = match tried {
        Ok((response, _)) => (Some(response.status().as_u16()), None),
        Err(failure) => (failure.status, failure.error.map(str::to_owned)),
    };
    Attempt {
        backend: Arc::clone(&deployment.spec.backend),
        deployment: Arc::clone(&deployment.spec.name),
        kind: deployment.spec.kind,
        status,
        error,
        after_ms,
        ms,
        billed: false,
    }
}
