//! An app's limits: requests and tokens a minute, calls in flight; for all it does and by model.
//!
//! **What a limit means.** In no 60 s is more admitted than a minute's limit, as far as usage is
//! known by then; and in the long run no more is used than the limit a minute, whatever was
//! estimated. Each rate is held by two counters, and a call needs room in both:
//! - a *window*, the charges of the last 60 to 61 s by second. An app that was quiet may use its
//!   whole minute at once, as it may at Azure. A token bucket alone that allows that admits up to
//!   two minutes' worth in one; a fixed window, such as Azure's, does so across its boundary.
//! - a *bucket* of a minute's size that leaks all the time. It keeps what a call used beyond its
//!   estimate as a debt until that is paid, where a window forgets it after a minute; and it spreads
//!   the calls of an app that is at its limit over the minute, where a window alone lets them
//!   in, all at once, each time that the last burst leaves it.
//!
//! A call is admitted until a limit is reached, so the last one admitted may go beyond it, by its
//! own size less one token; the bucket has later calls wait for that.
//!
//! **Estimate and correction.** A call is charged its estimate when it comes and the difference
//! when its usage is known. A call that is refused is charged nothing. (Azure counts refused
//! requests too; then no Retry-After could be true.)
//!
//! **Cost.** An admission takes one mutex, the app's own (a compare-and-swap and a swap when nobody
//! else has it), and one atomic increment, because the reservation holds the limits; its settling
//! takes the mutex again and one atomic decrement. Nothing is allocated. Under the mutex there are
//! additions, the divisions of the headers' figures, and the clearing of one slot for each
//! second since the last call, at most 61. Only while the window is full are its slots looked
//! through. An app without limits has no [`AppLimits`] and pays nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::time::Timestamp;

mod meter;
mod scope;
mod share;

#[cfg(test)]
mod tests;

pub use meter::Reading;
pub use share::{LimitId, Measured, SLICE_S, SLICES, Share};

use scope::Scope;

/// Output tokens that are assumed of a call that does not say how many it wants. Azure assumes a
/// number of its own, which it does not publish; the settling makes up for the difference.
pub const ASSUMED_OUTPUT: u64 = 500;

/// How long a call stays away that found too many in flight, ms. A guess: nobody knows when one of
/// those ends.
pub const IN_FLIGHT_RETRY_MS: u64 = 1000;

/// Longest time that a charge stays in the window, ms.
pub const WINDOW_MS: u64 = 61_000;

/// The tokens that a call is admitted by: its prompt's (see [`super::estimate`]), and the most that it
/// may generate. `max_output` is what the request says; `generates` is false for an operation that
/// only reads, as embeddings do.
pub fn call_estimate(prompt_tokens: u64, max_output: Option<u64>, generates: bool) -> u64 {
    let output = if generates {
        max_output.unwrap_or(ASSUMED_OUTPUT)
    } else {
        0
    };
    prompt_tokens.saturating_add(output)
}

/// What the configuration allows, of an app or of an app with one model. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Requests a minute, at least 1.
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute, prompt and output together; at least 1.
    pub tokens_per_minute: Option<u64>,
    /// Calls at the same time, at least 1.
    pub in_flight: Option<u32>,
}

impl Allowance {
    /// Whether it limits nothing.
    pub const fn is_unlimited(&self) -> bool {
        self.requests_per_minute.is_none()
            && self.tokens_per_minute.is_none()
            && self.in_flight.is_none()
    }
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Requests a minute.
    Requests,
    /// Tokens a minute.
    Tokens,
    /// Calls in flight.
    InFlight,
}

impl Sort {
    /// In words, for messages: `500 requests a minute`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests a minute",
            Self::Tokens => "tokens a minute",
            Self::InFlight => "calls in flight",
        }
    }

    /// The code of the error that says that such a limit is reached.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Requests => "request_limit_exceeded",
            Self::Tokens => "token_limit_exceeded",
            Self::InFlight => "in_flight_limit_exceeded",
        }
    }
}

/// The limit that refused a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What it limits.
    pub sort: Sort,
    /// Whether it is the app's with this model; else it is the app's with all models.
    pub is_models: bool,
    /// How much it allows.
    pub allowed: u64,
}

impl Limit {
    /// What the app is told that has reached it, with the model where it is that model's.
    pub fn reached(&self, app: &str, model: Option<&str>, retry_after_ms: u64) -> String {
        let (allowed, sort) = (self.allowed, self.sort.as_str());
        let model = model.map_or_else(String::new, |model| format!(" with the model `{model}`"));
        format!(
            "The app `{app}` has reached its limit of {allowed} {sort}{model}; try again in {retry_after_ms} ms."
        )
    }
}

/// How an app stands after a call: for each rate the tighter of its own and the model's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Requests a minute, where they are limited.
    pub requests: Option<Reading>,
    /// Tokens a minute, where they are limited.
    pub tokens: Option<Reading>,
}

impl Standing {
    /// The answer's headers, named as Azure names them. `reset` is in whole seconds, rounded up.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let requests = self.requests.map(|reading| {
            [
                ("x-ratelimit-limit-requests", reading.limit),
                ("x-ratelimit-remaining-requests", reading.remaining),
                ("x-ratelimit-reset-requests", seconds(reading.reset_ms)),
            ]
        });
        let tokens = self.tokens.map(|reading| {
            [
                ("x-ratelimit-limit-tokens", reading.limit),
                ("x-ratelimit-remaining-tokens", reading.remaining),
                ("x-ratelimit-reset-tokens", seconds(reading.reset_ms)),
            ]
        });
        requests.into_iter().chain(tokens).flatten()
    }
}

const fn seconds(ms: u64) -> u64 {
    ms.div_ceil(1000)
}

/// A call that may go on.
#[derive(Debug)]
pub struct Admitted {
    /// Its place; to be settled when its usage is known.
    pub reservation: Reservation,
    /// How the app stands now.
    pub standing: Standing,
}

/// A call that may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The limit in its way; of several the one that takes longest to have room.
    pub limit: Limit,
    /// Milliseconds until a call is admitted, when nothing else comes and the share stays, at least
    /// 1: not a millisecond earlier. For calls in flight a guess, [`IN_FLIGHT_RETRY_MS`].
    pub retry_after_ms: u64,
    /// How the app stands now.
    pub standing: Standing,
}

/// The limits of one app at this instance, and what it has used of them.
#[derive(Debug)]
pub struct AppLimits {
    app: Arc<str>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// All that the app does.
    whole: Scope,
    /// What it does with a model that has limits of its own.
    models: Vec<(Arc<str>, Scope)>,
    measured: Timestamp,
}

impl AppLimits {
    /// The limits of `app`, with nothing used. `None` when nothing is limited.
    pub fn new(
        app: Arc<str>,
        allowance: Allowance,
        models: impl IntoIterator<Item = (Arc<str>, Allowance)>,
        now: Timestamp,
    ) -> Option<Self> {
        let models: Vec<_> = models
            .into_iter()
            .filter(|(_, allowance)| !allowance.is_unlimited())
            .map(|(model, allowance)| (model, Scope::new(allowance, now)))
            .collect();
        if allowance.is_unlimited() && models.is_empty() {
            return None;
        }
        let state = Mutex::new(State {
            whole: Scope::new(allowance, now),
            models,
            measured: now,
        });
        Some(Self { app, state })
    }

    /// Allows this from now on. What was used counts on, also of a model that has no limits of its own
    /// any more and may get some again.
    ///
    /// Whether anything is limited is not asked.
    pub fn allow(
        &self,
        allowance: Allowance,
        models: impl IntoIterator<Item = (Arc<str>, Allowance)>,
        now: Timestamp,
    ) {
        let mut wanted: Vec<_> = models.into_iter().collect();
        let mut state = self.state();
        state.whole.allow(allowance, now);
        // Reservations know their model by its place.
        for (model, scope) in &mut state.models {
            let place = wanted.iter().position(|(name, _)| name == model);
            let allowance = place.map(|place| wanted.swap_remove(place).1);
            scope.allow(allowance.unwrap_or_default(), now);
        }
        let share = state.whole.share();
        for (model, allowance) in wanted {
            if !allowance.is_unlimited() {
                // Until the instances have shared it: a model's limit is used as the app's are.
                let mut scope = Scope::new(allowance, now);
                scope.set_share(share, now);
                state.models.push((model, scope));
            }
        }
    }

    /// Admits a call to `model` of about `estimate` tokens (see [`call_estimate`]) and charges it.
    ///
    /// # Errors
    /// [`Refused`] when one of the app's limits or of its limits with the model is reached.
    pub fn admit(
        self: &Arc<Self>,
        model: &str,
        estimate: u64,
        now: Timestamp,
    ) -> Result<Admitted, Refused> {
        let mut state = self.state();
        let State { whole, models, .. } = &mut *state;
        let index = models.iter().position(|(name, _)| **name == *model);
        let mut special = index.and_then(|index| models.get_mut(index));
        let mut special = special.as_mut().map(|(_, scope)| scope);
        whole.advance(now);
        let mut refusal = whole.refusal(false, now);
        if let Some(scope) = &mut special {
            scope.advance(now);
            refusal = longer(refusal, scope.refusal(true, now));
        }
        for scope in std::iter::once(&mut *whole).chain(special.as_deref_mut()) {
            if refusal.is_some() {
                scope.refuse(estimate);
            } else {
                scope.charge(estimate);
            }
        }
        let standing = whole.standing(special.as_deref(), now);
        drop(state);
        match refusal {
            Some((limit, retry_after_ms)) => Err(Refused {
                limit,
                retry_after_ms: retry_after_ms.max(1),
                standing,
            }),
            None => Ok(Admitted {
                reservation: Reservation {
                    limits: Arc::clone(self),
                    model: index,
                    estimate,
                    charged: now,
                    is_over: false,
                },
                standing,
            }),
        }
    }

    /// What was used and wanted of each limit, for the instances' sharing. For one caller, now and
    /// then: it notes when it was asked.
    pub fn measure(&self, now: Timestamp) -> Vec<(LimitId, Measured)> {
        let mut state = self.state();
        let elapsed_ms = now.ms_since(state.measured);
        state.measured = now;
        let State { whole, models, .. } = &mut *state;
        let whole = (LimitId::app(&self.app), whole.measure(elapsed_ms, now));
        let models = models.iter_mut().map(|(model, scope)| {
            let id = LimitId::model(&self.app, model);
            (id, scope.measure(elapsed_ms, now))
        });
        std::iter::once(whole).chain(models).collect()
    }

    /// Sets this instance's share of a limit; nothing happens when the app has no such limit.
    pub fn set_share(&self, limit: &LimitId, share: Share, now: Timestamp) {
        if limit.app != self.app {
            return;
        }
        let mut state = self.state();
        let State { whole, models, .. } = &mut *state;
        let scope = match &limit.model {
            None => Some(whole),
            Some(model) => models
                .iter_mut()
                .find_map(|(name, scope)| (name == model).then_some(scope)),
        };
        if let Some(scope) = scope {
            scope.set_share(share, now);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of two refusals the one with the longer wait.
fn longer(a: Option<(Limit, u64)>, b: Option<(Limit, u64)>) -> Option<(Limit, u64)> {
    match (a, b) {
        (Some(a), Some(b)) if b.1 > a.1 => Some(b),
        (None, b) => b,
        (a, _) => a,
    }
}

/// An admitted call's place. Dropped without being settled it counts as its estimate.
#[derive(Debug)]
#[must_use = "a reservation that is dropped ends its call and stays at its estimate"]
pub struct Reservation {
    limits: Arc<AppLimits>,
    model: Option<usize>,
    estimate: u64,
    charged: Timestamp,
    is_over: bool,
}

impl Reservation {
    /// What the call was charged when it came.
    pub const fn estimate(&self) -> u64 {
        self.estimate
    }

    /// Ends the call: it used `tokens`.
    pub fn settle(mut self, tokens: u64, now: Timestamp) {
        self.end(Some((tokens, now)));
    }

    /// Ends a call that used nothing, as one that no deployment took. It stays counted as a request.
    pub fn release(self, now: Timestamp) {
        self.settle(0, now);
    }

    fn end(&mut self, used: Option<(u64, Timestamp)>) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let mut state = self.limits.state();
        let State { whole, models, .. } = &mut *state;
        let special = self.model.and_then(|index| models.get_mut(index));
        let special = special.map(|(_, scope)| scope);
        for scope in std::iter::once(whole).chain(special) {
            scope.leave();
            if let Some((tokens, now)) = used {
                scope.correct(self.estimate, tokens, self.charged, now);
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.end(None);
    }
}
