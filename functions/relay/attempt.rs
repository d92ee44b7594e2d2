//! One attempt of a call at a deployment: its request is made and sent, and its answer waited for.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HOST, HeaderValue};
use http::{Method, Request, Response as HttpResponse};
use hyper::body::Incoming;

use super::call::{Call, Patience};
use super::credential::Shown;
use super::error::RelayError;
use super::headers::{AnswerHeaders, is_event_stream, set, to_backend};
use super::record::CallRecord;
use super::settings::Backend;
use super::start::{Start, error_body, first_byte, first_event};
use super::upstream::{RequestBody, Unsent, drain};
use super::{fallback, realtime, refusal, transform};
use crate::azure::own_token::Lack;
use crate::gateway::classify::{
    NoAnswer, Verdict, is_denied_action, is_missing_deployment, mark_ms, needs_body, verdict,
};
use crate::gateway::deployment::{Deployment, MarkReason};
use crate::gateway::request::segments;
use crate::gateway::route::Operation;
use crate::host::bodies::Gathered;

/// The start of an answer's body.
pub(super) enum First {
    /// The first chunks, none where the body is empty; the rest is still to come.
    Chunks(Vec<Bytes>),
    /// All of it.
    Whole(Bytes),
}

impl From<Gathered> for First {
    fn from(start: Gathered) -> Self {
        match start.is_whole {
            true => Self::Whole(start.bytes),
            false => Self::Chunks(vec![start.bytes]),
        }
    }
}

/// An answer that is kept until it is known whether another deployment has a better one.
pub(super) type Refusal = Box<(HttpResponse<Incoming>, First)>;

/// What an attempt brought.
pub(super) type Tried = Result<(HttpResponse<Incoming>, First), Failure>;

/// Why an attempt brought none.
pub(super) struct Failure {
    pub(super) reason: MarkReason,
    /// How long the deployment is marked; `None`: not at all, it had no fair chance.
    pub(super) mark_ms: Option<u64>,
    pub(super) status: Option<u16>,
    pub(super) error: Option<&'static str>,
    /// The answer, for a client whose call no other deployment takes either.
    pub(super) refusal: Option<Refusal>,
    /// Whether the backend may have done all the same what it was asked for.
    pub(super) may_be_done: bool,
}

impl Failure {
    /// One for which the deployment is marked.
    fn marked(reason: MarkReason, mark_ms: u64) -> Self {
        Self {
            reason,
            mark_ms: Some(mark_ms),
            status: None,
            error: None,
            refusal: None,
            may_be_done: false,
        }
    }
}

impl Call<'_> {
    /// Sends the call to a deployment and waits for its answer's first byte, as long as its patience
    /// lasts and `left_ms` at most.
    ///
    /// # Errors
    /// When the call can't be sent at all.
    pub(super) async fn attempt(
        &self,
        deployment: &Deployment,
        left_ms: u64,
        record: &CallRecord,
    ) -> Result<Tried, RelayError> {
        let backend = self.relay.settings.backends.get(&deployment.spec.backend);
        let backend = backend.ok_or_else(|| unsendable("the backend is gone"))?;
        let shown = match self.credential(backend).await {
            Ok(shown) => shown,
            Err(failure) => return Ok(Err(failure)),
        };
        let make = || self.request(backend, &deployment.spec.name, shown.clone());
        let request = make()?;
        let Patience {
            first_byte_ms,
            deadline_ms,
        } = self.patience;
        let patience_ms = first_byte_ms.min(left_ms.max(1));
        let patience = Duration::from_millis(patience_ms);
        let trying = self.first_byte(deployment, request, make, record);
        let tried = tokio::time::timeout(patience, trying).await;
        let failure = || {
            let mut failure = self.silence(NoAnswer::FirstByteTimeout);
            // Where the call had little time left, that says nothing of the deployment.
            let is_fair = patience_ms >= first_byte_ms.min(deadline_ms) / 2;
            failure.mark_ms = failure.mark_ms.filter(|_| is_fair);
            failure
        };
        Ok(tried.unwrap_or_else(|_| Err(failure())))
    }

    /// The header that shows the backend who calls it.
    async fn credential(&self, backend: &Backend) -> Result<Option<Shown>, Failure> {
        let settings = &self.relay.settings;
        let form = backend.form.unwrap_or(self.route.form);
        let patience = Duration::from_millis(settings.gateway.connect_timeout_ms);
        let now = self.relay.clock.now();
        let shown = backend.credential.header(form, now, patience).await;
        shown.map_err(|lack| self.no_token(lack))
    }

    /// The mark ends when the next attempt to get a token is made.
    fn no_token(&self, lack: Lack) -> Failure {
        let until_next = lack.next.ms_since(self.relay.clock.now());
        let reason = if lack.lasts {
            MarkReason::Misconfigured
        } else {
            MarkReason::Failed
        };
        let ms = until_next.clamp(1, self.relay.settings.marks.default_ms);
        Failure {
            error: Some("no_token"),
            ..Failure::marked(reason, ms)
        }
    }

    fn silence(&self, why: NoAnswer) -> Failure {
        Failure {
            error: Some(why.as_str()),
            ..Failure::marked(MarkReason::Failed, self.relay.settings.marks.default_ms)
        }
    }

    fn unsent(&self, unsent: Unsent) -> Failure {
        let mut failure = self.silence(unsent.why);
        failure.may_be_done = matches!(unsent.why, NoAnswer::Reset | NoAnswer::Protocol);
        // It says nothing of the deployment.
        failure.mark_ms = failure.mark_ms.filter(|_| !unsent.is_stale);
        failure
    }

    /// Whether a call that a backend may have begun to work on can be sent to it again: where that does no more
    /// than one would do, and where it could be sent to another deployment as well.
    fn may_be_repeated(&self) -> bool {
        let has_others = self.pinned.is_none() && self.relay.settings.limits.max_attempts > 1;
        self.method.is_idempotent() || self.generates() && has_others
    }

    /// An answer that began with a status, and has no body to pass on.
    fn broken(&self, why: NoAnswer, status: u16) -> Failure {
        Failure {
            status: Some(status),
            ..self.silence(why)
        }
    }

    /// Sends `request` and waits for the first byte of its answer. `again` makes it once more.
    async fn first_byte(
        &self,
        deployment: &Deployment,
        request: Request<RequestBody>,
        again: impl Fn() -> Result<Request<RequestBody>, RelayError>,
        record: &CallRecord,
    ) -> Tried {
        let mut sent = self.upstream.send(request).await;
        if let Err(Unsent { is_stale: true, .. }) = sent
            && self.may_be_repeated()
            && let Ok(request) = again()
        {
            sent = self.upstream.send(request).await;
        }
        let mut response = sent.map_err(|unsent| self.unsent(unsent))?;
        let status = response.status().as_u16();
        if needs_body(status) {
            return self.not_found(response, record).await;
        }
        if refusal::is_read(self, deployment, status)
            || fallback::reads_refusal(self, status, record)
        {
            return self.refused(deployment, response).await;
        }
        let headers = AnswerHeaders(response.headers());
        let marks = self.relay.settings.marks;
        // A call that generates nothing is about things that lie on this backend. What limits it there is an
        // operation's own limit, and no reason to keep all other calls of its kind away.
        let is_own_limit = status == 429 && !self.generates();
        if matches!(status, 401 | 403) && !self.generates() {
            return self.denied(response, record).await;
        }
        if let Verdict::Retry { reason, ms } = verdict(status, &headers, false, marks, record.now())
            && !is_own_limit
        {
            drain(response.into_body());
            return Err(Failure {
                status: Some(status),
                ..Failure::marked(reason, ms)
            });
        }
        // What is stored and shown again may be a stream that failed: that was then.
        let is_stream =
            status == 200 && self.method == Method::POST && is_event_stream(response.headers());
        let body = response.body_mut();
        let start = if is_stream {
            first_event(body).await
        } else {
            first_byte(body).await
        };
        match start {
            Start::Chunks(chunks) => Ok((response, First::Chunks(chunks))),
            Start::Silence(why) => Err(self.broken(why, status)),
            Start::Fault(reason) => {
                let headers = AnswerHeaders(response.headers());
                let failure = Failure {
                    status: Some(status),
                    error: Some("error_event"),
                    ..Failure::marked(reason, mark_ms(&headers, marks, record.now()))
                };
                drain(response.into_body());
                Err(failure)
            }
        }
    }

    /// A 400 that may be this deployment's alone.
    async fn refused(
        &self,
        deployment: &Deployment,
        mut response: HttpResponse<Incoming>,
    ) -> Tried {
        let start = error_body(response.body_mut()).await;
        let start = start.map_err(|why| self.broken(why, 400))?;
        let is_own = start.is_whole && refusal::is_own(self, deployment, &start.bytes);
        let answer = (response, start.into());
        if !is_own {
            return Ok(answer);
        }
        Err(Failure {
            reason: MarkReason::Failed,
            mark_ms: None,
            status: Some(400),
            error: Some("refused"),
            refusal: Some(Box::new(answer)),
            may_be_done: false,
        })
    }

    /// A 401 or 403 to a call that generates nothing: the gateway's identity may lack the role for files, say, and may
    /// call deployments all the same.
    async fn denied(&self, mut response: HttpResponse<Incoming>, record: &CallRecord) -> Tried {
        let status = response.status().as_u16();
        let start = error_body(response.body_mut()).await;
        let start = start.map_err(|why| self.broken(why, status))?;
        if is_denied_action(&start.bytes) {
            tracing::warn!(
                request_id = record.event.id,
                trace_id = record.event.trace_digits(),
                path = self.route.path,
                status,
                "the gateway's identity may not do this at the backend; see docs/identity.md"
            );
            return Ok((response, start.into()));
        }
        Err(Failure {
            status: Some(status),
            ..Failure::marked(
                MarkReason::Misconfigured,
                self.relay.settings.marks.default_ms,
            )
        })
    }

    async fn not_found(&self, response: HttpResponse<Incoming>, record: &CallRecord) -> Tried {
        let (parts, mut incoming) = response.into_parts();
        let start = error_body(&mut incoming).await;
        let start = start.map_err(|why| self.broken(why, 404))?;
        let missing = is_missing_deployment(&start.bytes);
        let headers = AnswerHeaders(&parts.headers);
        let marks = self.relay.settings.marks;
        match verdict(404, &headers, missing, marks, record.now()) {
            Verdict::Retry { reason, ms } => Err(Failure {
                status: Some(404),
                ..Failure::marked(reason, ms)
            }),
            Verdict::Answer => {
                let response = HttpResponse::from_parts(parts, incoming);
                Ok((response, start.into()))
            }
        }
    }

    fn request(
        &self,
        backend: &Backend,
        deployment: &str,
        shown: Option<Shown>,
    ) -> Result<Request<RequestBody>, RelayError> {
        let form = backend.form.unwrap_or(self.route.form);
        let name = Some(deployment).filter(|name| !name.is_empty());
        let path = self.route.upstream(form, name, &backend.api_version);
        let in_path = self.route.deployment_in_path(form);
        let knows_usage = self.route.knows_stream_options(form, &backend.api_version);
        let in_body = name.filter(|_| !in_path && !self.route.is_of_base_models());
        let edits = self.reading.edits(in_body, knows_usage);
        let body = RequestBody::new(segments(&self.body, &edits));
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        let url = backend.place.url(path);
        *request.uri_mut() =
            url.ok_or_else(|| unsendable("the URL has characters that no URL may have"))?;
        let mut headers = to_backend(self.headers);
        transform::headers(self, &mut headers);
        if self.route.operation == Operation::Realtime {
            realtime::ask_to_switch(&mut headers);
        }
        if let Some((name, value)) = shown {
            headers.insert(name, value);
        }
        if let Some(principal) = &self.caller.principal
            && self.relay.settings.passes_object_id
            && !principal.object_id.is_empty()
        {
            set(&mut headers, "caller-objectid", &*principal.object_id);
        }
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(HOST, backend.place.host.clone());
        // The client's own length of a body that is as long as it was, which the server has counted: a new
        // one takes memory.
        if let Some(length) = self.headers.get(CONTENT_LENGTH)
            && is_number(length, request.body().left())
        {
            headers.insert(CONTENT_LENGTH, length.clone());
        }
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// Whether a header says this number.
fn is_number(value: &HeaderValue, number: u64) -> bool {
    let text = value.to_str().ok();
    text.and_then(|text| text.parse().ok()) == Some(number)
}

fn unsendable(what: &str) -> RelayError {
    RelayError::Unsendable(what.to_owned())
}
