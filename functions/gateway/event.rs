//! The usage event: one per logical call, with its attempts. It is what chargeback counts.
//!
//! The fields are those of the chargeback table. Tokens are whole numbers, times are milliseconds.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::number_of;
use super::priority::Priority;
use super::service_tier::ServiceTier;
use super::time::Timestamp;
use super::trace::Parent;

/// How a deployment is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Provisioned throughput: paid by the hour, used or not.
    Ptu,
    /// Pay-as-you-go: rate-limited, paid by the token.
    Payg,
}

impl Kind {
    /// `ptu` or `payg`, as in configuration, headers and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ptu => "ptu",
            Self::Payg => "payg",
        }
    }
}

/// Tokens of one call by sort. `cached`, `reasoning`, `audio` and `image` are parts of
/// `input` or `output`, not additions to them ([`super::sorts`] takes them apart).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tokens {
    /// Prompt tokens, cached ones included.
    pub input: u64,
    /// Completion tokens, reasoning included.
    pub output: u64,
    /// Part of `input` that came from the prompt cache.
    pub cached: u64,
    /// Part of `output` spent on reasoning.
    pub reasoning: u64,
    /// Audio tokens in input.
    pub audio_input: u64,
    /// Audio tokens in output.
    pub audio_output: u64,
    /// Image tokens in input.
    pub image_input: u64,
    /// Audio tokens that came from the prompt cache: part of `cached` and of `audio_input`. 0 too where the
    /// answer does not say of which sort its cached tokens were.
    pub cached_audio: u64,
    /// Image tokens that came from the prompt cache: part of `cached` and of `image_input`; as `cached_audio`.
    pub cached_image: u64,
}

impl Tokens {
    /// Input and output together.
    pub const fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

/// Where the figures of [`Tokens`] come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UsageSource {
    /// Read from the answer.
    Reported,
    /// Estimated by the gateway: the answer had none, was cut, or the client left.
    Estimated,
    /// The call used nothing that is billed (an error, a list, a delete).
    #[default]
    None,
}

impl UsageSource {
    /// The word used in events and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Estimated => "estimated",
            Self::None => "none",
        }
    }
}

/// What became of a call that could have been given another call's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// It was given an answer that was kept.
    Hit,
    /// A backend was asked.
    Miss,
    /// It waited for the answer of the same call, which was under way.
    Coalesced,
}

impl Cache {
    /// The word used in headers and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Coalesced => "coalesced",
        }
    }
}

/// What a call was spared because its answer was another call's too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Saving {
    /// The tokens that it would have used beside those that it is charged.
    pub tokens: Tokens,
    /// The backend that made the answer.
    pub backend: Arc<str>,
    /// The deployment there.
    pub deployment: Arc<str>,
    /// Its kind.
    pub kind: Option<Kind>,
}

/// One try at one deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Backend's name in the configuration.
    pub backend: Arc<str>,
    /// Deployment's name on that backend.
    pub deployment: Arc<str>,
    /// How the deployment is paid for.
    pub kind: Kind,
    /// HTTP status; absent when none came (refused, reset, timed out).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u16>,
    /// What went wrong, in one word; absent when nothing did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// From the call's arrival to the start of the try. Only telemetry needs it, and only in this process.
    #[serde(skip)]
    pub after_ms: u64,
    /// From the start of the try to its end or first body byte.
    pub ms: u64,
    /// Whether the backend charged for it.
    pub billed: bool,
}

/// The deployment that charges for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served<'a> {
    /// Its backend's name; empty when none charges.
    pub backend: &'a Arc<str>,
    /// Its name on that backend.
    pub deployment: &'a Arc<str>,
    /// How it is paid for.
    pub kind: Option<Kind>,
}

/// One logical call of an app.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UsageEvent {
    /// Unique, and ordered by time: the row's key. Equal to `x-spillway-request-id`.
    pub id: String,
    /// When the call came in.
    pub time: Timestamp,
    /// Who pays.
    pub app: Arc<str>,
    /// Who called by means of the app: the object id (`oid`) of a user, or of the app itself, as
    /// the call's Entra token says; empty without one.
    #[serde(skip_serializing_if = "str::is_empty", default)]
    pub user: Arc<str>,
    /// As `user`, by the token's `sub`, which differs from app to app.
    #[serde(skip_serializing_if = "str::is_empty", default)]
    pub subject: Arc<str>,
    /// How urgent the call was.
    #[serde(default)]
    pub priority: Priority,
    /// The model that the app asked for; empty where the operation has none.
    pub model: Arc<str>,
    /// The operation, for example `chat/completions`.
    pub operation: String,
    /// Backend that answered; empty when none did.
    pub backend: Arc<str>,
    /// Deployment that answered; empty when none did.
    pub deployment: Arc<str>,
    /// Kind of the deployment that answered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kind: Option<Kind>,
    /// Azure region of the backend that answered, where the configuration names it.
    #[serde(skip_serializing_if = "str::is_empty", default)]
    pub region: Arc<str>,
    /// Status that the client saw.
    pub status: u16,
    /// Whether the answer was streamed.
    pub streamed: bool,
    /// Whether a PTU deployment was passed over, full, and pay-as-you-go served.
    pub spilled: bool,
    /// How the call ended.
    pub outcome: Outcome,
    /// Tokens used.
    pub tokens: Tokens,
    /// Where `tokens` come from.
    pub usage: UsageSource,
    /// The service tier that processed it, as the answer says.
    #[serde(skip_serializing_if = "ServiceTier::is_standard", default)]
    pub service_tier: ServiceTier,
    /// From the call's arrival to the answer's first byte.
    pub first_byte_ms: u64,
    /// From the call's arrival to its end.
    pub total_ms: u64,
    /// Every try, in order.
    pub attempts: Vec<Attempt>,
    /// The trace that the call belongs to (W3C trace-id), when the client named one.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub trace_id: String,
    /// The client's span in that trace. Only telemetry needs it, and only in this process.
    #[serde(skip)]
    pub parent: Option<Parent>,
    /// The blob that has the request and the answer, with its container, where the app's prompts are
    /// logged; it is written soon after. Empty where they are not.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub prompt_log: String,
    /// What became of it in the cache; absent where it did not come to that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cache: Option<Cache>,
    /// What it was spared, where its answer was another call's too.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub saving: Option<Box<Saving>>,
}

impl UsageEvent {
    /// Input and output tokens that the call was spared.
    pub fn saved_tokens(&self) -> u64 {
        self.saving
            .as_ref()
            .map_or(0, |saving| saving.tokens.total())
    }
}

impl UsageEvent {
    /// The trace that the call's spans are in: the client's. Where it named none, the trace's id is the call's
    /// own as a number: whoever knows one knows the other. `None` where the call has no such id.
    pub fn trace(&self) -> Option<u128> {
        let named = u128::from_str_radix(&self.trace_id, 16).ok();
        let known = named.or_else(|| number_of(&self.id));
        known.filter(|id| *id != 0)
    }

    /// That trace's id as 32 hexadecimal digits; empty where there is none.
    pub fn trace_digits(&self) -> String {
        let digits = |id| format!("{id:032x}");
        self.trace().map_or_else(String::new, digits)
    }

    /// The attempt that a backend charges for. Of several, which others may report, it is the last: the
    /// tokens of a call are known once.
    pub fn billed(&self) -> Option<&Attempt> {
        self.attempts.iter().rev().find(|attempt| attempt.billed)
    }

    /// The deployment that charges for the call: that of the billed attempt, else the one that
    /// answered. All that is counted by deployment goes by it: price, sums, PTU hours, utilization.
    pub fn served(&self) -> Served<'_> {
        match self.billed() {
            Some(attempt) => Served {
                backend: &attempt.backend,
                deployment: &attempt.deployment,
                kind: Some(attempt.kind),
            },
            None => Served {
                backend: &self.backend,
                deployment: &self.deployment,
                kind: self.kind,
            },
        }
    }
}

/// How a call ended, as the gateway saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The whole answer reached the client.
    Completed,
    /// The client went away before the end.
    ClientGone,
    /// The backend's answer broke off after its first byte.
    Cut,
    /// No answer of a backend could be had, or the gateway refused the call.
    #[default]
    Failed,
}

impl Outcome {
    /// The word used in events and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ClientGone => "client_gone",
            Self::Cut => "cut",
            Self::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_the_same_word_everywhere() {
        for kind in [Kind::Ptu, Kind::Payg] {
            let json = serde_json::to_value(kind).unwrap();
            assert_eq!(json.as_str(), Some(kind.as_str()));
        }
    }

    #[test]
    fn every_choice_of_few_has_one_word_in_rows_and_in_json() {
        let word = |value: serde_json::Value| value.as_str().map(str::to_owned);
        for usage in [
            UsageSource::Reported,
            UsageSource::Estimated,
            UsageSource::None,
        ] {
            let json = serde_json::to_value(usage).unwrap();
            assert_eq!(word(json).as_deref(), Some(usage.as_str()));
        }
        for cache in [Cache::Hit, Cache::Miss, Cache::Coalesced] {
            let json = serde_json::to_value(cache).unwrap();
            assert_eq!(word(json).as_deref(), Some(cache.as_str()));
        }
        for outcome in [
            Outcome::Completed,
            Outcome::ClientGone,
            Outcome::Cut,
            Outcome::Failed,
        ] {
            let json = serde_json::to_value(outcome).unwrap();
            assert_eq!(word(json).as_deref(), Some(outcome.as_str()));
        }
    }

    #[test]
    fn a_call_is_in_its_clients_trace_or_in_one_by_its_own_id() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let id = "01KB6F0000000000000000000A";
        let mut event = UsageEvent {
            id: id.into(),
            trace_id: trace.into(),
            ..UsageEvent::default()
        };
        assert_eq!(event.trace_digits(), trace);
        event.trace_id.clear();
        assert_eq!(event.trace(), number_of(id));
        assert_eq!(event.trace_digits().len(), 32);
        event.id = "none".into();
        assert_eq!((event.trace(), &*event.trace_digits()), (None, ""));
    }

    #[test]
    fn the_attempt_that_was_billed_says_who_charges() {
        let attempt = |deployment: &str, kind, billed| Attempt {
            backend: "b".into(),
            deployment: deployment.into(),
            kind,
            status: None,
            error: None,
            after_ms: 0,
            ms: 1,
            billed,
        };
        let mut event = UsageEvent {
            backend: "a".into(),
            deployment: "answered".into(),
            kind: Some(Kind::Payg),
            ..UsageEvent::default()
        };
        let served = |event: &UsageEvent| {
            let Served {
                backend,
                deployment,
                kind,
            } = event.served();
            (backend.to_string(), deployment.to_string(), kind)
        };
        let answered = ("a".into(), "answered".into(), Some(Kind::Payg));
        assert_eq!(served(&event), answered);
        event.attempts = vec![attempt("x", Kind::Ptu, false)];
        assert_eq!(
            served(&event),
            answered,
            "a try that failed charges nothing"
        );
        event.attempts.extend([
            attempt("y", Kind::Ptu, true),
            attempt("z", Kind::Payg, false),
        ]);
        assert_eq!(served(&event), ("b".into(), "y".into(), Some(Kind::Ptu)));
    }

    #[test]
    fn without_a_clients_trace_the_calls_own_id_is_one() {
        let mut event = UsageEvent {
            id: "00000000000000000000000011".into(),
            ..UsageEvent::default()
        };
        assert_eq!(event.trace(), Some(33));
        event.trace_id = "4bf92f3577b34da6a3ce929d0e0e4736".into();
        assert_eq!(
            event.trace(),
            Some(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736)
        );
        assert_eq!(UsageEvent::default().trace(), None);
    }

    #[test]
    fn an_event_comes_back_from_json_as_it_went() {
        let event = UsageEvent {
            id: "01J".into(),
            time: Timestamp::from_unix_ms(7),
            kind: Some(Kind::Ptu),
            outcome: Outcome::ClientGone,
            tokens: Tokens {
                input: 3,
                output: u64::MAX,
                cached: 2,
                audio_input: 3,
                cached_audio: 2,
                ..Tokens::default()
            },
            service_tier: ServiceTier::Priority,
            attempts: vec![Attempt {
                backend: "a".into(),
                deployment: "b".into(),
                kind: Kind::Payg,
                status: None,
                error: Some("reset".into()),
                after_ms: 0,
                ms: 5,
                billed: false,
            }],
            cache: Some(Cache::Coalesced),
            saving: Some(Box::new(Saving {
                kind: Some(Kind::Payg),
                ..Saving::default()
            })),
            ..UsageEvent::default()
        };
        let json = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<UsageEvent>(&json).unwrap(), event);
        assert_eq!(event.tokens.total(), u64::MAX, "it saturates");
    }

    #[test]
    fn an_event_of_a_release_that_knew_fewer_fields_has_none_of_their_tokens() {
        let mut json = serde_json::to_value(UsageEvent::default()).unwrap();
        assert_eq!(json.get("service_tier"), None, "standard is not named");
        let tokens = json["tokens"].as_object_mut().unwrap();
        tokens.retain(|name, _| !name.starts_with("cached_"));
        let event: UsageEvent = serde_json::from_value(json).unwrap();
        assert_eq!(event, UsageEvent::default());
    }
}
