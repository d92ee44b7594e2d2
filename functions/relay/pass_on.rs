//! An answer on its way to the client: its headers, what is noted of it, and its body.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::affinity::Owner;
use super::attempt::First;
use super::body::{Reader, RelayBody};
use super::cache::{CACHE, Role};
use super::call::{Answered, Call};
use super::headers::{hide_host, set, to_client};
use super::record::CallRecord;
use crate::gateway::deployment::DeploymentSpec;
use crate::gateway::event::{Kind, Outcome};

const BACKEND: HeaderName = HeaderName::from_static("x-spillway-backend");
const KIND: HeaderName = HeaderName::from_static("x-spillway-kind");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-spillway-attempts");
/// The model that served in place of the one asked for.
const MODEL: &str = "x-spillway-model";

impl Call<'_> {
    pub(super) fn pass_on(&self, answered: Answered, mut record: CallRecord) -> Response {
        let (parts, incoming) = answered.response.into_parts();
        let spec = &answered.deployment.spec;
        record.served_by(spec);
        if let Some(spillover) = answered.spillover {
            record.spilled_to(spillover);
        }
        let kind = record.event.kind.unwrap_or(spec.kind);
        record.event.status = parts.status.as_u16();
        let elapsed = self.started.elapsed().as_millis();
        record.event.first_byte_ms = u64::try_from(elapsed).unwrap_or(u64::MAX);
        let hides_usage = self.reading.hides_usage();
        let reader = Reader::new(&parts.headers, self.route.operation, hides_usage);
        let is_events = matches!(reader, Reader::Events(_));
        record.event.streamed = is_events;
        if let Some(prompt) = record.prompt.as_mut().filter(|_| is_events) {
            prompt.is_streamed();
        }
        if let Some(Role::Makes(keep)) = record.cache.as_deref_mut() {
            let is_read = !matches!(reader, Reader::Opaque);
            let is_own = answered.model == record.event.model;
            keep.begins(
                parts.status == StatusCode::OK && is_read && is_own,
                &parts.headers,
            );
        }
        let mut headers = to_client(parts.headers, !is_events);
        // An answer with a URL of its own is another one than 200.
        if parts.status != StatusCode::OK
            && let Some(backend) = self.relay.settings.backends.get(&spec.backend)
        {
            hide_host(&mut headers, &backend.place.host);
        }
        self.say_who_answered(&mut headers, spec, kind, answered.attempts);
        if self.relay.settings.gateway.answer_headers {
            if let Some(role) = &record.cache {
                let outcome = HeaderValue::from_static(role.outcome().as_str());
                headers.insert(CACHE, outcome);
            }
            if answered.model != record.event.model {
                set(&mut headers, MODEL, &*answered.model);
            }
        }
        let makes = self.method == Method::POST
            && parts.status.is_success()
            && self.route.makes_stored(self.reading.store());
        if self.method == Method::DELETE
            && parts.status.is_success()
            && let Some(id) = self.route.stored_object()
        {
            self.relay.affinity.forget(id, &self.caller.app.name);
        }
        let made = makes.then(|| Owner {
            backend: Arc::clone(&spec.backend),
            app: Arc::clone(&self.caller.app.name),
        });
        let body = match answered.first {
            First::Whole(body) => {
                if let Some(prompt) = &mut record.prompt {
                    prompt.take(&body);
                }
                record.finish(Outcome::Completed, None, 0);
                Body::from(body)
            }
            First::Chunks(first) => Body::new(RelayBody::new(
                Arc::clone(self.relay),
                first,
                incoming,
                reader,
                record,
                made,
            )),
        };
        let mut response = Response::new(body);
        *response.status_mut() = parts.status;
        *response.headers_mut() = headers;
        response
    }

    /// Puts in which deployment answered, and at which attempt.
    pub(super) fn say_who_answered(
        &self,
        headers: &mut HeaderMap,
        spec: &DeploymentSpec,
        kind: Kind,
        attempts: usize,
    ) {
        let settings = &self.relay.settings;
        if !settings.gateway.answer_headers {
            return;
        }
        if let Some(backend) = settings.backends.get(&spec.backend) {
            headers.insert(BACKEND, backend.name.clone());
        }
        headers.insert(KIND, HeaderValue::from_static(kind.as_str()));
        headers.insert(ATTEMPTS, numbered(attempts));
    }
}

/// The number of an attempt. Most calls need one, and that takes no memory.
fn numbered(attempts: usize) -> HeaderValue {
    match attempts {
        1 => HeaderValue::from_static("1"),
        more => more.into(),
    }
}
