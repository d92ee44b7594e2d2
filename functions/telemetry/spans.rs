//! A call's spans, made of its usage event: one for the call, as its server, and below it one for each
//! attempt, as a backend's client.
//!
//! Names are those of OpenTelemetry's conventions for generative AI (in development, as of 1.41) and for HTTP;
//! what the gateway alone knows begins with `spillway.`. Nothing of a prompt or an answer is in them.

use std::sync::Arc;

use super::messages::KeyValue;
use super::messages::trace::{Kind, Span, Status, StatusCode};
use super::nanoseconds;
use super::queue::Traced;
use crate::gateway::event::{Attempt, Outcome, UsageEvent, UsageSource};
use crate::gateway::route::Operation;

/// What the configuration says of a backend and a deployment there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The backend's host.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// The model that apps ask for; `None` of a deployment that it does not name.
    pub model: Option<Arc<str>>,
    /// The deployment's tier.
    pub tier: Option<u8>,
}

/// Azure OpenAI, as OpenTelemetry calls it.
const PROVIDER: &str = "azure.ai.openai";

/// Flags of a span (`SpanFlags`): the trace is recorded; whether the parent is elsewhere is said; it is.
const SAMPLED: u32 = 0x01;
const SAYS_WHERE: u32 = 0x100;
const FROM_ELSEWHERE: u32 = 0x200;

/// How many spans a call has.
pub(super) fn count(event: &UsageEvent) -> u64 {
    u64::try_from(event.attempts.len())
        .unwrap_or(u64::MAX)
        .saturating_add(1)
}

/// The spans of a call. `target` says what is known of an attempt's deployment, `random` makes their ids.
pub(super) fn of(
    call: &Traced,
    target: &dyn Fn(&Attempt) -> Option<Target>,
    random: &mut fastrand::Rng,
) -> Vec<Span> {
    let event = &*call.event;
    let server = of_call(call, random);
    let last = event.attempts.len().wrapping_sub(1);
    let attempts = event.attempts.iter().enumerate().map(|(place, attempt)| {
        // As it is counted: the last attempt of a call that got an answer brought it.
        let is_answer = place == last && !event.backend.is_empty();
        Span {
            span_id: new_span_id(random),
            parent_span_id: server.span_id.clone(),
            trace_id: server.trace_id.clone(),
            ..of_attempt(event, attempt, is_answer, target(attempt).as_ref())
        }
    });
    let attempts: Vec<Span> = attempts.collect();
    std::iter::once(server).chain(attempts).collect()
}

fn of_call(call: &Traced, random: &mut fastrand::Rng) -> Span {
    let event = &*call.event;
    let operation = Operation::of(&event.operation);
    let remote = if event.parent.is_some() {
        FROM_ELSEWHERE
    } else {
        0
    };
    let parent = event
        .parent
        .map(|parent| parent.span_id.to_be_bytes().to_vec());
    let mut of = Attributes::default();
    of.generated(operation);
    of.text("gen_ai.request.model", &event.model);
    of.put("http.response.status_code", u64::from(event.status));
    of.put("spillway.request_id", event.id.as_str());
    of.text("spillway.app", &event.app);
    of.put("spillway.priority", event.priority.as_str());
    of.put("spillway.outcome", event.outcome.as_str());
    of.put("spillway.spilled", event.spilled);
    if let Some(cache) = event.cache {
        of.put("spillway.cache", cache.as_str());
    }
    // A server's own failures only: what is the client's fault is no error of the server (conventions for HTTP).
    let error = match (event.outcome, event.status) {
        (Outcome::Cut, _) => Some(Outcome::Cut.as_str().to_owned()),
        (_, status @ 500..) => Some(status.to_string()),
        _ => None,
    };
    let status = of.error(error);
    Span {
        trace_id: call.trace_id.to_be_bytes().to_vec(),
        span_id: new_span_id(random),
        parent_span_id: parent.unwrap_or_default(),
        name: route(operation, &event.operation).to_owned(),
        kind: Kind::Server.into(),
        start: nanoseconds(event.time),
        end: nanoseconds(event.time.plus_ms(event.total_ms)),
        attributes: of.0,
        status,
        flags: SAMPLED | SAYS_WHERE | remote,
    }
}

/// An attempt's span, without its ids.
fn of_attempt(
    event: &UsageEvent,
    attempt: &Attempt,
    is_answer: bool,
    target: Option<&Target>,
) -> Span {
    let operation = Operation::of(&event.operation);
    let start = event.time.plus_ms(attempt.after_ms);
    // An answer goes on until the call ends.
    let end = if is_answer {
        event.time.plus_ms(event.total_ms).max(start)
    } else {
        start.plus_ms(attempt.ms)
    };
    let model = target.and_then(|target| target.model.as_deref());
    let model = model.unwrap_or(&event.model);
    let mut of = Attributes::default();
    of.generated(operation);
    of.put("gen_ai.provider.name", PROVIDER);
    of.text("gen_ai.request.model", model);
    if let Some(status) = attempt.status {
        of.put("http.response.status_code", u64::from(status));
    }
    of.text("spillway.backend", &attempt.backend);
    of.text("spillway.deployment", &attempt.deployment);
    of.put("spillway.kind", attempt.kind.as_str());
    if let Some(target) = target {
        of.put("server.address", target.address.as_str());
        of.put("server.port", u64::from(target.port));
        if let Some(tier) = target.tier {
            of.put("spillway.tier", u64::from(tier));
        }
    }
    if is_answer && event.streamed {
        of.put("gen_ai.request.stream", true);
        let first_chunk = std::time::Duration::from_millis(attempt.ms).as_secs_f64();
        of.put("gen_ai.response.time_to_first_chunk", first_chunk);
    }
    if attempt.billed {
        of.usage(event);
    }
    let refusal = attempt.status.filter(|status| *status >= 400);
    let error = match (&attempt.error, refusal) {
        (Some(word), _) => Some(word.clone()),
        (None, Some(status)) => Some(status.to_string()),
        (None, None) if is_answer && event.outcome == Outcome::Cut => {
            Some(Outcome::Cut.as_str().to_owned())
        }
        (None, None) => None,
    };
    let status = of.error(error);
    let name = match generated(operation) {
        Some(name) if model.is_empty() => name.to_owned(),
        Some(name) => format!("{name} {model}"),
        None => route(operation, &event.operation).to_owned(),
    };
    Span {
        name,
        kind: Kind::Client.into(),
        start: nanoseconds(start),
        end: nanoseconds(end),
        attributes: of.0,
        status,
        flags: SAMPLED | SAYS_WHERE,
        ..Span::default()
    }
}

/// The value of `gen_ai.operation.name`; what the conventions name is named so.
const fn generated(operation: Operation) -> Option<&'static str> {
    match operation {
        Operation::ChatCompletions | Operation::Responses => Some("chat"),
        Operation::Completions => Some("text_completion"),
        Operation::Embeddings => Some("embeddings"),
        Operation::Images => Some("image_generation"),
        Operation::Transcription => Some("transcription"),
        Operation::Speech => Some("speech"),
        Operation::Realtime => Some("realtime"),
        Operation::Models | Operation::Other => None,
    }
}

/// The operation's path where it is one of few: others have ids in them, which make no name.
fn route(operation: Operation, path: &str) -> &str {
    match operation {
        Operation::Models => "models",
        Operation::Other => "other",
        _ => path,
    }
}

fn new_span_id(random: &mut fastrand::Rng) -> Vec<u8> {
    random.u64(1..).to_be_bytes().to_vec()
}

/// Attributes as they gather.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn put(&mut self, key: &str, value: impl Into<super::messages::Any>) {
        self.0.push(KeyValue::new(key, value));
    }

    /// A text, where it is not empty.
    fn text(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.put(key, text);
        }
    }

    fn generated(&mut self, operation: Operation) {
        if let Some(name) = generated(operation) {
            self.put("gen_ai.operation.name", name);
        }
        match operation {
            Operation::ChatCompletions => self.put("openai.api.type", "chat_completions"),
            Operation::Responses => self.put("openai.api.type", "responses"),
            _ => {}
        }
    }

    fn usage(&mut self, event: &UsageEvent) {
        let tokens = &event.tokens;
        self.put("gen_ai.usage.input_tokens", tokens.input);
        self.put("gen_ai.usage.output_tokens", tokens.output);
        for (key, part) in [
            ("gen_ai.usage.cache_read.input_tokens", tokens.cached),
            ("gen_ai.usage.reasoning.output_tokens", tokens.reasoning),
        ] {
            if part > 0 {
                self.put(key, part);
            }
        }
        let is_estimated = event.usage == UsageSource::Estimated;
        self.put("spillway.usage.estimated", is_estimated);
    }

    /// Notes what went wrong, if anything did; the span's status.
    fn error(&mut self, error: Option<String>) -> Option<Status> {
        let error = error?;
        self.put("error.type", error.as_str());
        let code = StatusCode::Error.into();
        Some(Status { code })
    }
}
