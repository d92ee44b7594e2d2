//! One attempt of a call at a deployment: its request is made and sent, and its answer waited for.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HOST, HeaderValue};
use http::{Method, Request, Response as HttpResponse};
use hyper::body::Incoming;

use super::call::Call;
use super::credential::Shown;
use super::error::RelayError;
use super::headers::{AnswerHeaders, is_event_stream, set, to_backend};
use super::record::CallRecord;
use super::settings::Backend;
use super::start::{Start, first_byte, first_event};
use super::upstream::{RequestBody, drain, small_body};
use super::{fallback, realtime, transform};
use crate::azure::own_token::Lack;
use crate::gateway::classify::{
    NoAnswer, Verdict, is_missing_deployment, mark_ms, needs_body, verdict,
};
use crate::gateway::deployment::{Deployment, MarkReason};
use crate::gateway::request::segments;
use crate::gateway::route::Operation;

/// Most of a 404 that is read to tell a missing deployment from the client's mistake.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// The start of an answer's body.
pub(super) enum First {
    /// The first chunks, none where the body is empty; the rest is still to come.
    Chunks(Vec<Bytes>),
    /// All of it.
    Whole(Bytes),
}

/// What an attempt brought.
pub(super) type Tried = Result<(HttpResponse<Incoming>, First), Failure>;

/// Why an attempt brought none.
pub(super) struct Failure {
    pub(super) reason: MarkReason,
    /// How long the deployment is marked; `None`: not at all, it had no fair chance.
    pub(super) mark_ms: Option<u64>,
    pub(super) status: Option<u16>,
    pub(super) error: Option<&'static str>,
}

impl Call<'_> {
    /// Sends the call to a deployment and waits for its answer's first byte, as long as the settings have it
    /// and `left_ms` at most.
    ///
    /// # Errors
    /// When the call can't be sent at all.
    pub(super) async fn attempt(
        &self,
        deployment: &Deployment,
        left_ms: u64,
        record: &CallRecord,
    ) -> Result<Tried, RelayError> {
        let gateway = &self.relay.settings.gateway;
        let backend = self.relay.settings.backends.get(&deployment.spec.backend);
        let backend = backend.ok_or_else(|| unsendable("the backend is gone"))?;
        let shown = match self.credential(backend).await {
            Ok(shown) => shown,
            Err(failure) => return Ok(Err(failure)),
        };
        let request = self.request(backend, &deployment.spec.name, shown)?;
        let patience_ms = gateway.first_byte_timeout_ms.min(left_ms.max(1));
        let patience = Duration::from_millis(patience_ms);
        let tried = tokio::time::timeout(patience, self.first_byte(request, record)).await;
        let failure = || {
            let mut failure = self.silence(NoAnswer::FirstByteTimeout);
            // The call had little time left: that says nothing of the deployment.
            failure.mark_ms = failure
                .mark_ms
                .filter(|_| patience_ms == gateway.first_byte_timeout_ms);
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
        Failure {
            reason: if lack.lasts {
                MarkReason::Misconfigured
            } else {
                MarkReason::Failed
            },
            mark_ms: Some(until_next.clamp(1, self.relay.settings.marks.default_ms)),
            status: None,
            error: Some("no_token"),
        }
    }

    fn silence(&self, why: NoAnswer) -> Failure {
        Failure {
            reason: MarkReason::Failed,
            mark_ms: Some(self.relay.settings.marks.default_ms),
            status: None,
            error: Some(why.as_str()),
        }
    }

    async fn first_byte(&self, request: Request<RequestBody>, record: &CallRecord) -> Tried {
        let sent = self.upstream.send(request).await;
        let mut response = sent.map_err(|why| self.silence(why))?;
        let status = response.status().as_u16();
        if needs_body(status) {
            return self.not_found(response, record).await;
        }
        if fallback::reads_refusal(self, status, record) {
            let whole = small_body(response.body_mut(), MAX_ERROR_BODY).await;
            return Ok((response, First::Whole(whole.unwrap_or_default())));
        }
        let headers = AnswerHeaders(response.headers());
        let marks = self.relay.settings.marks;
        // A call without a model is about things that lie on this backend. What limits it there is an
        // operation's own limit, and no reason to keep all other calls without a model away.
        let is_own_limit = status == 429 && self.model.name().is_empty();
        if let Verdict::Retry { reason, ms } = verdict(status, &headers, false, marks, record.now())
            && !is_own_limit
        {
            drain(response.into_body());
            return Err(Failure {
                reason,
                mark_ms: Some(ms),
                status: Some(status),
                error: None,
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
            Start::Silence(why) => Err(Failure {
                status: Some(status),
                ..self.silence(why)
            }),
            Start::Fault(reason) => {
                let headers = AnswerHeaders(response.headers());
                let failure = Failure {
                    reason,
                    mark_ms: Some(mark_ms(&headers, marks, record.now())),
                    status: Some(status),
                    error: Some("error_event"),
                };
                drain(response.into_body());
                Err(failure)
            }
        }
    }

    async fn not_found(&self, response: HttpResponse<Incoming>, record: &CallRecord) -> Tried {
        let (parts, mut incoming) = response.into_parts();
        let body = small_body(&mut incoming, MAX_ERROR_BODY)
            .await
            .unwrap_or_default();
        let missing = is_missing_deployment(&body);
        let headers = AnswerHeaders(&parts.headers);
        let marks = self.relay.settings.marks;
        match verdict(404, &headers, missing, marks, record.now()) {
            Verdict::Retry { reason, ms } => Err(Failure {
                reason,
                mark_ms: Some(ms),
                status: Some(404),
                error: None,
            }),
            Verdict::Answer => {
                let response = HttpResponse::from_parts(parts, incoming);
                Ok((response, First::Whole(body)))
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
        let edits = self.reading.edits(name.filter(|_| !in_path));
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
