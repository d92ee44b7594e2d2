//! One call's record: what becomes its usage event.

use std::sync::Arc;

use crate::gateway::deployment::{DeploymentSpec, InFlight};
use crate::gateway::estimate;
use crate::gateway::event::{Attempt, Kind, Outcome, Tokens, UsageEvent, UsageSource};
use crate::gateway::identity::Identity;
use crate::gateway::limit::Reservation;
use crate::gateway::route::Operation;
use crate::gateway::spillover::Spillover;
use crate::gateway::time::Timestamp;
use crate::host::clock::Clock;

use super::cache::Role;
use super::prompts::Capture;
use crate::outbox::recorder::{Lasting, Recorder, UnderWay};
use crate::pacing::Slot;

/// What is known of a call so far. Its event is handed on when it ends, however it ends.
#[derive(Debug)]
pub(super) struct CallRecord {
    /// Boxed: a call is moved often on its way.
    pub(super) event: Box<UsageEvent>,
    pub(super) operation: Operation,
    /// Whether the call can use tokens: only a POST can. A stored answer that is read says again what
    /// it used when it was made.
    pub(super) can_use: bool,
    /// Tokens of the prompt, estimated.
    pub(super) prompt_tokens: u64,
    /// The call at its deployment, while an attempt or the answer runs.
    pub(super) in_flight: Option<InFlight>,
    /// When the attempt under way began.
    begun: Option<Timestamp>,
    /// The call's place in its app's limits, until it ends.
    pub(super) reservation: Option<Reservation>,
    /// Whether a full PTU deployment was passed over so far.
    pub(super) passed_ptu: bool,
    /// The slot of a low-priority call, until it ends.
    pub(super) slot: Option<Slot>,
    /// What is kept of its text, where the app's prompts are logged.
    pub(super) prompt: Option<Box<Capture>>,
    /// What it is to the cache, where its app's answers are kept.
    pub(super) cache: Option<Box<Role>>,
    clock: Clock,
    _under_way: UnderWay,
    recorder: Recorder,
    is_recorded: bool,
}

/// The status of a call whose client left before it got one: what nginx logs then.
const CLIENT_GONE: u16 = 499;

/// Longest path that an event has, bytes: a client's can be as long as a request's head may.
const MAX_OPERATION: usize = 1024;

/// What an event has of a path.
fn clipped(path: &str) -> &str {
    let end = path.floor_char_boundary(MAX_OPERATION);
    path.get(..end).unwrap_or_default()
}

impl CallRecord {
    pub(super) fn new(clock: Clock, recorder: Recorder, id: String, operation: &str) -> Self {
        let event = UsageEvent {
            id,
            time: clock.now(),
            operation: clipped(operation).to_owned(),
            ..UsageEvent::default()
        };
        Self {
            event: Box::new(event),
            operation: Operation::Other,
            can_use: false,
            prompt_tokens: 0,
            in_flight: None,
            begun: None,
            reservation: None,
            passed_ptu: false,
            slot: None,
            prompt: None,
            cache: None,
            clock,
            _under_way: recorder.under_way(),
            recorder,
            is_recorded: false,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Notes who calls.
    pub(super) fn called_by(&mut self, caller: &Identity) {
        self.event.app = Arc::clone(&caller.app.name);
        if let Some(principal) = &caller.principal {
            self.event.user = Arc::clone(&principal.object_id);
            self.event.subject = Arc::clone(&principal.subject);
        }
    }

    /// Notes that an attempt begins.
    pub(super) fn begin(&mut self, in_flight: InFlight) {
        self.in_flight = Some(in_flight);
        self.begun = Some(self.now());
    }

    /// Notes an attempt that has ended, or brought an answer.
    pub(super) fn attempt(&mut self, attempt: Attempt) {
        self.begun = None;
        self.event.attempts.push(attempt);
    }

    /// Notes the deployment that serves the call.
    pub(super) fn served_by(&mut self, spec: &DeploymentSpec) {
        let event = &mut self.event;
        event.backend = Arc::clone(&spec.backend);
        event.deployment = Arc::clone(&spec.name);
        event.kind = Some(spec.kind);
        event.region = spec.region.clone().unwrap_or_default();
        event.spilled = self.passed_ptu && spec.kind == Kind::Payg;
    }

    /// Notes that another deployment than the one that was asked served the call.
    pub(super) fn spilled_to(&mut self, spillover: Spillover) {
        self.event.deployment = spillover.served_by;
        self.event.kind = Some(Kind::Payg);
        self.event.spilled = true;
    }

    /// Notes the attempt under way, which the client does not wait for any more. It is what the call
    /// is charged by: no attempt before it brought an answer.
    fn leave_midway(&mut self) {
        let Some((in_flight, begun)) = self.in_flight.as_ref().zip(self.begun) else {
            return;
        };
        let spec = in_flight.deployment().spec.clone();
        self.served_by(&spec);
        self.attempt(Attempt {
            backend: spec.backend,
            deployment: spec.name,
            kind: spec.kind,
            status: None,
            error: Some(Outcome::ClientGone.as_str().to_owned()),
            after_ms: begun.ms_since(self.event.time),
            ms: self.now().ms_since(begun),
            billed: false,
        });
    }

    /// Whether the end of the call's answer waits for its event.
    pub(super) fn is_durable(&self) -> bool {
        self.recorder.is_durable()
    }

    /// The record of a session's next response: who calls and who answers stay as they are, and what the
    /// call holds goes over to it.
    pub(super) fn next_response(&mut self, id: String) -> Self {
        let mut next = Self::new(self.clock, self.recorder.clone(), id, &self.event.operation);
        let answered = Attempt {
            backend: Arc::clone(&self.event.backend),
            deployment: Arc::clone(&self.event.deployment),
            kind: self.event.kind.unwrap_or(Kind::Payg),
            status: Some(self.event.status),
            error: None,
            after_ms: 0,
            ms: 0,
            billed: false,
        };
        *next.event = UsageEvent {
            id: std::mem::take(&mut next.event.id),
            time: next.event.time,
            operation: std::mem::take(&mut next.event.operation),
            attempts: vec![answered],
            first_byte_ms: 0,
            ..(*self.event).clone()
        };
        next.operation = self.operation;
        next.can_use = self.can_use;
        next.in_flight = self.in_flight.take();
        next.slot = self.slot.take();
        next
    }

    /// Ends a call that is none yet: it makes its event when it is called.
    pub(super) fn forget(mut self) {
        self.is_recorded = true;
    }

    /// Ends the call: `usage` as the answer reported it, `text_bytes` of generated text seen. Gives
    /// what the end of the answer has to wait for, if anything.
    pub(super) fn finish(
        mut self,
        outcome: Outcome,
        usage: Option<Tokens>,
        text_bytes: u64,
    ) -> Option<Lasting> {
        self.end(outcome, usage, text_bytes)
    }

    fn end(&mut self, outcome: Outcome, usage: Option<Tokens>, text_bytes: u64) -> Option<Lasting> {
        let mut event = std::mem::take(&mut self.event);
        self.is_recorded = true;
        event.outcome = outcome;
        let now = self.clock.now();
        event.total_ms = now.ms_since(event.time);
        // A backend that works on a call charges for it, whether or not the client stays.
        let has_left = outcome == Outcome::ClientGone && event.status == CLIENT_GONE;
        let left_midway = has_left && self.in_flight.is_some();
        let used = left_midway || (200..300).contains(&event.status);
        (event.tokens, event.usage) = match usage {
            Some(tokens) if self.can_use => (tokens, UsageSource::Reported),
            None if used && self.can_use && self.operation.is_billed() => {
                let tokens = estimated(self.prompt_tokens, text_bytes);
                (tokens, UsageSource::Estimated)
            }
            _ => (Tokens::default(), UsageSource::None),
        };
        if let Some(reservation) = self.reservation.take() {
            reservation.settle(event.tokens.total(), now);
        }
        // After that: the limits count what the backend did, whoever shares its bill.
        if let Some(role) = self.cache.take() {
            role.finish(&mut event);
        }
        let billed = event.usage != UsageSource::None;
        if let Some(last) = event.attempts.last_mut() {
            last.billed = billed;
        }
        if let Some(prompt) = self.prompt.take() {
            prompt.finish(&mut event);
        }
        self.recorder.record(event)
    }
}

/// A call that is dropped before its end has lost its client.
impl Drop for CallRecord {
    fn drop(&mut self) {
        if self.is_recorded {
            return;
        }
        if self.event.status == 0 {
            self.event.status = CLIENT_GONE;
        }
        self.leave_midway();
        self.end(Outcome::ClientGone, None, 0);
    }
}

fn estimated(prompt_tokens: u64, text_bytes: u64) -> Tokens {
    Tokens {
        input: prompt_tokens,
        output: estimate::tokens_of_bytes(text_bytes),
        ..Tokens::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::deployment::Deployment;

    #[test]
    fn an_answer_without_usage_is_estimated_and_says_so() {
        let (recorder, mut events) = Recorder::new(2, false);
        let mut record = CallRecord::new(Clock::new(), recorder, "id".into(), "chat/completions");
        record.operation = Operation::ChatCompletions;
        record.event.status = 200;
        record.can_use = true;
        record.prompt_tokens = 100;
        record.finish(Outcome::ClientGone, None, 40);
        let event = events.try_next().unwrap();
        assert_eq!((event.tokens.input, event.tokens.output), (100, 10));
        assert_eq!(event.usage, UsageSource::Estimated);
    }

    #[test]
    fn a_refusal_that_its_client_did_not_wait_for_costs_nothing() {
        let deployment = Arc::new(Deployment::new(DeploymentSpec {
            backend: "a".into(),
            name: "m".into(),
            kind: Kind::Payg,
            tier: 1,
            weight: 1,
            region: None,
            apps: Vec::new(),
        }));
        let gone = Outcome::ClientGone;
        for (outcome, status, usage) in [
            (gone, 400, UsageSource::None),
            (gone, 200, UsageSource::Estimated),
            (gone, CLIENT_GONE, UsageSource::Estimated),
            // A proxy before the backend says so as well, of an answer that nobody made.
            (Outcome::Completed, CLIENT_GONE, UsageSource::None),
        ] {
            let (recorder, mut events) = Recorder::new(2, false);
            let mut record = CallRecord::new(Clock::new(), recorder, "id".into(), "embeddings");
            record.operation = Operation::Embeddings;
            record.can_use = true;
            record.in_flight = Some(deployment.enter());
            record.event.status = status;
            record.finish(outcome, None, 0);
            let event = events.try_next().unwrap();
            assert_eq!(event.usage, usage, "{outcome:?} {status}");
        }
    }

    #[test]
    fn an_event_has_the_start_of_a_long_path() {
        assert_eq!(clipped("chat/completions"), "chat/completions");
        let long = "x".repeat(1023) + "\u{65E5}\u{65E5}";
        assert_eq!(clipped(&long), &long[..1023]);
    }
}
