//! One thread's counters.

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::histogram::{Histogram, MS, TOKENS};
use super::names::Names;
use super::notable::Notable;
use super::totals::{Total, Totals};
use crate::gateway::event::{Attempt, Outcome, UsageEvent};
use crate::gateway::priority::Priority;

/// What is counted. The order is that of rows in the store: add new ones at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Calls answered with a status below 400.
    Good,
    /// Calls answered with a 4xx but 429.
    ClientError,
    /// Calls answered with 429.
    Throttled,
    /// Calls answered with a 5xx.
    ServerError,
    /// Calls whose client left before the end.
    ClientGone,
    /// Calls whose answer broke off after its first byte.
    Cut,
    /// Calls that passed a full PTU deployment over and were served by pay-as-you-go.
    Spilled,
    /// Attempts that brought an answer.
    AttemptServed,
    /// Attempts that met a 429.
    AttemptThrottled,
    /// Attempts that failed: no connection, time-out, 408, 5xx.
    AttemptFailed,
    /// Attempts at which the backend refused the gateway itself.
    AttemptRefused,
    /// Prompt tokens.
    Input,
    /// Generated tokens.
    Output,
    /// Part of the prompt tokens that came from the prompt cache.
    Cached,
    /// Part of the generated tokens spent on reasoning.
    Reasoning,
    /// Part of the prompt tokens that were of low-priority calls.
    LowInput,
    /// Part of the generated tokens that were.
    LowOutput,
    /// Part of the cached tokens that were.
    LowCached,
}

impl Count {
    /// How many there are.
    pub const LEN: usize = Self::LowCached as usize + 1;

    /// The classes of calls: each is in one.
    pub(super) const OF_CALLS: [Self; 5] = [
        Self::Good,
        Self::ClientError,
        Self::Throttled,
        Self::ServerError,
        Self::ClientGone,
    ];

    /// The class of a call's status and end.
    pub const fn of_call(event: &UsageEvent) -> Self {
        match (event.outcome, event.status) {
            (Outcome::ClientGone, _) => Self::ClientGone,
            (_, 429) => Self::Throttled,
            (_, 400..=499) => Self::ClientError,
            (_, 500..) => Self::ServerError,
            _ => Self::Good,
        }
    }

    /// The class of an attempt. `is_last` of a call that got an answer is the attempt that brought it.
    const fn of_attempt(attempt: &Attempt, is_last: bool) -> Self {
        match attempt.status {
            Some(429) => Self::AttemptThrottled,
            _ if is_last => Self::AttemptServed,
            Some(401 | 403 | 404) => Self::AttemptRefused,
            _ => Self::AttemptFailed,
        }
    }
}

/// The histograms of a deployment or model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// From the start to the end, ms: of a deployment's attempts that brought an answer, of a
    /// model's calls.
    Duration,
    /// From the start to the first byte, ms.
    FirstByte,
    /// Prompt tokens of a call.
    Input,
    /// Generated tokens of a call.
    Output,
}

impl Size {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Duration, Self::FirstByte, Self::Input, Self::Output];

    /// The upper bounds of its buckets.
    pub const fn bounds(self) -> &'static [u64] {
        match self {
            Self::Duration | Self::FirstByte => MS,
            Self::Input | Self::Output => TOKENS,
        }
    }
}

/// Counters of a deployment, a model or an app.
#[derive(Debug)]
struct Meter {
    counts: [AtomicU64; Count::LEN],
    /// None for apps.
    sizes: Vec<Histogram>,
}

impl Meter {
    fn new(sizes: &[Size]) -> Self {
        let new = |size: &Size| Histogram::new(size.bounds());
        Self {
            counts: std::array::from_fn(|_| AtomicU64::default()),
            sizes: sizes.iter().map(new).collect(),
        }
    }

    fn add(&self, count: Count, number: u64) {
        if number > 0
            && let Some(counter) = self.counts.get(count as usize)
        {
            counter.fetch_add(number, Relaxed);
        }
    }

    fn size(&self, size: Size, value: u64) {
        if let Some(histogram) = self.sizes.get(size as usize) {
            histogram.count(value);
        }
    }

    fn tokens(&self, event: &UsageEvent) {
        let tokens = &event.tokens;
        self.add(Count::Input, tokens.input);
        self.add(Count::Output, tokens.output);
        self.add(Count::Cached, tokens.cached);
        self.add(Count::Reasoning, tokens.reasoning);
        if event.priority == Priority::Low {
            self.add(Count::LowInput, tokens.input);
            self.add(Count::LowOutput, tokens.output);
            self.add(Count::LowCached, tokens.cached);
        }
    }

    fn call(&self, event: &UsageEvent) {
        self.add(Count::of_call(event), 1);
        self.add(Count::Cut, u64::from(event.outcome == Outcome::Cut));
        self.add(Count::Spilled, u64::from(event.spilled));
        self.tokens(event);
    }

    fn times_and_tokens(&self, duration_ms: u64, first_byte_ms: u64, event: &UsageEvent) {
        self.size(Size::Duration, duration_ms);
        self.size(Size::FirstByte, first_byte_ms);
        if event.tokens.total() > 0 {
            self.size(Size::Input, event.tokens.input);
            self.size(Size::Output, event.tokens.output);
        }
    }

    /// Calls, however they ended.
    fn calls(&self) -> u64 {
        let counters = Count::OF_CALLS.iter();
        let counters = counters.filter_map(|count| self.counts.get(*count as usize));
        counters.map(|counter| counter.load(Relaxed)).sum()
    }

    fn add_to(&self, total: &mut Total) {
        for (sum, counter) in total.counts.iter_mut().zip(&self.counts) {
            *sum += counter.load(Relaxed);
        }
        for (tally, histogram) in total.sizes.iter_mut().zip(&self.sizes) {
            histogram.add_to(tally);
        }
    }
}

/// The counters of one thread. Others may count in it too, at the price of sharing its cache lines.
#[derive(Debug)]
pub struct Shard {
    /// Replaced where other names are counted. A call that is being counted then counts in the meters
    /// that the new ones have taken over.
    meters: ArcSwap<Meters>,
    /// Locked by this thread for failures and slow calls only, and by whoever takes them.
    notable: Mutex<Notable>,
}

/// The counters of what has these names, in their order.
#[derive(Debug)]
struct Meters {
    names: Arc<Names>,
    deployments: Vec<Arc<Meter>>,
    models: Vec<Arc<Meter>>,
    apps: Vec<Arc<Meter>>,
}

impl Meters {
    fn new(names: Arc<Names>) -> Self {
        let meters = |count: usize, sizes: &[Size]| {
            let new = || Arc::new(Meter::new(sizes));
            std::iter::repeat_with(new).take(count).collect()
        };
        Self {
            deployments: meters(names.deployments.len(), &Size::ALL),
            models: meters(names.models.len(), &Size::ALL),
            apps: meters(names.apps.len(), &[]),
            names,
        }
    }

    /// Meters of other names: those of names that were there before are the same.
    fn after(&self, names: Arc<Names>) -> Self {
        let mut next = Self::new(names);
        let names = &next.names;
        for (meter, name) in next.deployments.iter_mut().zip(&names.deployments) {
            let place = self.names.deployment(&name.backend, &name.deployment);
            take_over(meter, place.and_then(|place| self.deployments.get(place)));
        }
        for (meter, name) in next.models.iter_mut().zip(&names.models) {
            let place = self.names.known_model(name);
            take_over(meter, place.and_then(|place| self.models.get(place)));
        }
        for (meter, name) in next.apps.iter_mut().zip(&names.apps) {
            let place = self.names.known_app(name);
            take_over(meter, place.and_then(|place| self.apps.get(place)));
        }
        next
    }

    fn deployment(&self, backend: &str, deployment: &str) -> Option<&Arc<Meter>> {
        let place = self.names.deployment(backend, deployment)?;
        self.deployments.get(place)
    }
}

fn take_over(meter: &mut Arc<Meter>, before: Option<&Arc<Meter>>) {
    if let Some(before) = before {
        *meter = Arc::clone(before);
    }
}

impl Shard {
    pub(super) fn new(names: Arc<Names>) -> Self {
        Self {
            meters: ArcSwap::from_pointee(Meters::new(names)),
            notable: Mutex::default(),
        }
    }

    /// Counts by other names from now on. What was counted of a name stays as long as the name does.
    pub(super) fn adopt(&self, names: &Arc<Names>) {
        let next = self.meters.load().after(Arc::clone(names));
        self.meters.store(Arc::new(next));
    }

    /// Counts a call that has ended.
    pub fn count(&self, event: &UsageEvent) {
        let answered = !event.backend.is_empty();
        let meters = self.meters.load();
        if let Some(model) = meters.models.get(meters.names.model(&event.model)) {
            model.call(event);
            if answered {
                model.times_and_tokens(event.total_ms, event.first_byte_ms, event);
            }
        }
        if let Some(app) = meters.apps.get(meters.names.app(&event.app)) {
            app.call(event);
        }
        let last = event.attempts.len().wrapping_sub(1);
        for (place, attempt) in event.attempts.iter().enumerate() {
            let Some(deployment) = meters.deployment(&attempt.backend, &attempt.deployment) else {
                continue;
            };
            let is_answer = answered && place == last;
            deployment.add(Count::of_attempt(attempt, is_answer), 1);
            if is_answer {
                let before_ms = event.first_byte_ms.saturating_sub(attempt.ms);
                let duration_ms = event.total_ms.saturating_sub(before_ms);
                deployment.call(event);
                deployment.times_and_tokens(duration_ms, attempt.ms, event);
            }
        }
        if Notable::is_notable(event) {
            let mut notable = self.notable.lock().unwrap_or_else(PoisonError::into_inner);
            notable.offer(event);
        }
    }

    pub(super) fn ended(&self) -> u64 {
        self.meters
            .load()
            .models
            .iter()
            .map(|model| model.calls())
            .sum()
    }

    /// Adds what was counted to totals of the same names.
    pub(super) fn add_to(&self, totals: &mut Totals) {
        let meters = self.meters.load();
        let pairs = totals.deployments.iter_mut().zip(&meters.deployments);
        let pairs = pairs.chain(totals.models.iter_mut().zip(&meters.models));
        for (total, meter) in pairs.chain(totals.apps.iter_mut().zip(&meters.apps)) {
            meter.add_to(total);
        }
    }

    pub(super) fn take_notable(&self) -> Notable {
        let mut notable = self.notable.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *notable)
    }
}
