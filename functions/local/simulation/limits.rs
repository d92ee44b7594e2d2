//! A deployment's door: who is admitted, what its headers say, and the settling of the bill.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::payg::{PaygWindows, Rate};
use super::resource::Clock;
use super::tokens::{CACHED_PREFIX_TOKENS, Prompt};
use super::work::Work;
use super::{Limit, SimulatedDeployment};
use crate::gateway::pacing::window::Minute;
use crate::gateway::ptu::{CallTokens, ModelRate, PtuBucket, Reservation, Utilization};
use crate::gateway::time::Timestamp;

/// Output tokens that are assumed of a call without `max_tokens`. Azure makes a guess of its own,
/// which it does not publish.
const ASSUMED_OUTPUT: u64 = 500;

/// How long a prompt's prefix stays cached: the shorter end of what Azure says ("5 to 10 minutes
/// of inactivity").
const CACHE_MS: u64 = 5 * 60_000;

/// Prefixes remembered; beyond that all are forgotten.
const MAX_PREFIXES: usize = 1024;

/// One deployment at work.
#[derive(Debug)]
pub(super) struct Deployment {
    pub(super) name: String,
    pub(super) model: String,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limiter: Limiter,
    prefixes: HashMap<u64, Timestamp>,
    /// What it did, where it is provisioned.
    work: Option<Work>,
}

#[derive(Debug)]
enum Limiter {
    Ptu(PtuBucket),
    Payg(PaygWindows),
}

/// Why and for how long a call was refused.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Milliseconds after which it is worth asking again. At least 1.
    pub(super) retry_after_ms: u64,
    /// The PAYG rate that was exceeded; `None` from a full PTU.
    pub(super) exceeded: Option<Rate>,
    /// The headers of the deployment's standing.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

/// One admitted call. Dropping it settles the bill with what has been used by then, so that a client
/// that goes away pays for no more than it got.
#[derive(Debug)]
pub(super) struct Ticket {
    deployment: Arc<Deployment>,
    reservation: Option<Reservation>,
    /// What the call has used so far.
    pub(super) used: CallTokens,
}

impl Deployment {
    pub(super) fn new(settings: SimulatedDeployment, clock: Clock) -> Self {
        let now = clock.now();
        let work = match settings.limit {
            Limit::Ptu { ptus } => Some(Work::new(ptus, &settings.model)),
            Limit::Payg { .. } => None,
        };
        let limiter = match settings.limit {
            Limit::Ptu { ptus } => {
                let rate = ModelRate::of(&settings.model).unwrap_or(ModelRate::ASSUMED);
                Limiter::Ptu(PtuBucket::new(ptus, rate, now))
            }
            Limit::Payg {
                tokens_per_minute,
                requests_per_minute,
            } => Limiter::Payg(PaygWindows::new(
                tokens_per_minute,
                requests_per_minute,
                now,
            )),
        };
        let state = Mutex::new(State {
            limiter,
            prefixes: HashMap::new(),
            work,
        });
        Self {
            name: settings.name,
            model: settings.model,
            clock,
            state,
        }
    }

    /// Admits a call with `prompt` that may generate `max_output` tokens, if it says so.
    ///
    /// # Errors
    /// The refusal of a deployment that is full.
    pub(super) fn admit(
        self: &Arc<Self>,
        prompt: &Prompt,
        max_output: Option<u64>,
    ) -> Result<Ticket, Refusal> {
        let now = self.clock.now();
        let mut state = self.state();
        let cached = state.cached_tokens(prompt, now);
        let output = max_output.unwrap_or(ASSUMED_OUTPUT);
        let estimate = CallTokens {
            prompt: prompt.tokens,
            cached,
            output,
        };
        let reservation = state.limiter.admit(estimate, now)?;
        state.remember(prompt, now);
        drop(state);
        let used = CallTokens {
            output: 0,
            ..estimate
        };
        Ok(Ticket {
            deployment: Arc::clone(self),
            reservation,
            used,
        })
    }

    /// Its minutes, where it is provisioned.
    pub(super) fn work(&self) -> Option<BTreeMap<Minute, Utilization>> {
        self.state().work.as_ref().map(Work::minutes)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn cached_tokens(&self, prompt: &Prompt, now: Timestamp) -> u64 {
        let used = prompt.cache_key().and_then(|key| self.prefixes.get(&key));
        let fresh = used.is_some_and(|at| now.ms_since(*at) < CACHE_MS);
        if fresh { CACHED_PREFIX_TOKENS } else { 0 }
    }

    fn remember(&mut self, prompt: &Prompt, now: Timestamp) {
        let Some(key) = prompt.cache_key() else {
            return;
        };
        if self.prefixes.len() >= MAX_PREFIXES {
            self.prefixes.clear();
        }
        self.prefixes.insert(key, now);
    }
}

impl Limiter {
    fn admit(
        &mut self,
        estimate: CallTokens,
        now: Timestamp,
    ) -> Result<Option<Reservation>, Refusal> {
        match self {
            Self::Ptu(bucket) => match bucket.admit(estimate, now) {
                Ok(reservation) => Ok(Some(reservation)),
                Err(full) => Err(Refusal {
                    retry_after_ms: full.retry_after_ms,
                    exceeded: None,
                    headers: self.headers(now),
                }),
            },
            Self::Payg(windows) => {
                let tokens = estimate.prompt.saturating_add(estimate.output);
                match windows.admit(tokens, now) {
                    Ok(()) => Ok(None),
                    Err((rate, retry_after_ms)) => Err(Refusal {
                        retry_after_ms: retry_after_ms.max(1),
                        exceeded: Some(rate),
                        headers: self.headers(now),
                    }),
                }
            }
        }
    }

    /// What the deployment says of itself: utilization when PTU, the rates when PAYG.
    fn headers(&mut self, now: Timestamp) -> Vec<(HeaderName, HeaderValue)> {
        let name = HeaderName::from_static;
        match self {
            Self::Ptu(bucket) => HeaderValue::try_from(bucket.utilization(now).to_string())
                .map(|value| (name("azure-openai-deployment-utilization"), value))
                .into_iter()
                .collect(),
            Self::Payg(windows) => {
                let standing = windows.standing(now);
                vec![
                    (
                        name("x-ratelimit-limit-tokens"),
                        standing.limit_tokens.into(),
                    ),
                    (
                        name("x-ratelimit-remaining-tokens"),
                        standing.remaining_tokens.into(),
                    ),
                    (name("x-ratelimit-reset-tokens"), standing.reset_s.into()),
                    (
                        name("x-ratelimit-limit-requests"),
                        standing.limit_requests.into(),
                    ),
                    (
                        name("x-ratelimit-remaining-requests"),
                        standing.remaining_requests.into(),
                    ),
                    (name("x-ratelimit-reset-requests"), standing.reset_s.into()),
                ]
            }
        }
    }
}

impl Ticket {
    /// Adds the deployment's name and standing to an answer's headers.
    pub(super) fn stamp(&self, headers: &mut HeaderMap) {
        if let Ok(name) = HeaderValue::try_from(&self.deployment.name) {
            headers.insert("x-ms-deployment-name", name);
        }
        headers.insert("x-ms-rai-invoked", HeaderValue::from_static("true"));
        let now = self.deployment.clock.now();
        let standing = self.deployment.state().limiter.headers(now);
        headers.extend(standing);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(reservation) = self.reservation.take() else {
            return;
        };
        let now = self.deployment.clock.now();
        let mut state = self.deployment.state();
        if let Limiter::Ptu(bucket) = &mut state.limiter {
            bucket.settle(reservation, self.used, now);
        }
        if let Some(work) = &mut state.work {
            work.add(self.used, now);
        }
    }
}
