//! The sums of table `chargeback`: what an app's calls of a day come to.
//!
//! They lie beside the day's calls and are written in the same transaction, so that a sum is always
//! that of its calls. There is one by model, kind, backend and deployment, `sum|MODEL|KIND|BACKEND|
//! DEPLOYMENT`, and one by hour, model and PTU deployment, `ptu|HH|MODEL|BACKEND|DEPLOYMENT`. The
//! deployment is the one that charges ([`UsageEvent::served`]). Instances that write the same sum at
//! once go on in further shards of it, which have `|` and a number after that: who reads adds them up.

use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::Decimal;

use super::{Fields, Pages, Range, Row, Store, StoreError, Table, chargeback, encode_key};
use crate::gateway::event::{Cache, Kind, Outcome, Tokens, UsageEvent, UsageSource};
use crate::gateway::price::Charge;
use crate::gateway::reconcile::Counted;

#[cfg(test)]
mod tests;

/// What the keys of sums begin with.
pub const SUM: &str = "sum|";

/// What the keys of a PTU deployment's hours begin with.
pub const PTU: &str = "ptu|";

/// The status of a call whose client left: no failure of anybody.
const CLIENT_GONE: u16 = 499;

/// What calls come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Calls.
    pub calls: u64,
    /// Calls that failed: with a status of 400 or more, or broken off by the backend. A client that
    /// left is no failure.
    pub failed_calls: u64,
    /// Calls that a full PTU deployment passed on to pay-as-you-go.
    pub spilled_calls: u64,
    /// Calls that used something whose price is not known, or only that of the standard service tier.
    pub unpriced_calls: u64,
    /// Calls whose tokens the gateway estimated.
    pub estimated_calls: u64,
    /// Tokens by sort.
    pub tokens: Tokens,
    /// Input and output tokens that the gateway estimated.
    pub estimated_tokens: u64,
    /// Input and output tokens of spilled calls.
    pub spilled_tokens: u64,
    /// What the calls with a price cost.
    pub cost: Decimal,
    /// The part of `cost` of spilled calls.
    pub spilled_cost: Decimal,
    /// Tokens as a provisioned deployment counts them; 0 for pay-as-you-go.
    pub weighted: u64,
    /// Calls that were given a kept answer.
    pub hit_calls: u64,
    /// Calls that were given the answer of the same call, which was under way.
    pub coalesced_calls: u64,
    /// Input and output tokens that calls were spared so.
    pub saved_tokens: u64,
    /// What those would have cost at pay-as-you-go deployments.
    pub saved_cost: Decimal,
}

impl Sum {
    /// The sum of one call.
    pub fn of(event: &UsageEvent, charge: &Charge) -> Self {
        let failed = event.status >= 400 && event.status != CLIENT_GONE
            || matches!(event.outcome, Outcome::Failed | Outcome::Cut);
        let cost = charge.cost.unwrap_or_default();
        let estimated = event.usage == UsageSource::Estimated;
        let if_spilled = |n: u64| if event.spilled { n } else { 0 };
        Self {
            calls: 1,
            failed_calls: failed.into(),
            spilled_calls: event.spilled.into(),
            unpriced_calls: charge.is_unpriced.into(),
            estimated_calls: estimated.into(),
            tokens: event.tokens,
            estimated_tokens: if estimated { event.tokens.total() } else { 0 },
            spilled_tokens: if_spilled(event.tokens.total()),
            cost,
            spilled_cost: if event.spilled { cost } else { Decimal::ZERO },
            weighted: charge.weighted,
            hit_calls: (event.cache == Some(Cache::Hit)).into(),
            coalesced_calls: (event.cache == Some(Cache::Coalesced)).into(),
            saved_tokens: event.saved_tokens(),
            saved_cost: charge.saved,
        }
    }

    /// Both together; `None` where a count can't be kept exactly any more.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Option<Self> {
        let (a, b) = (&self.tokens, &other.tokens);
        Some(Self {
            calls: add(self.calls, other.calls)?,
            failed_calls: add(self.failed_calls, other.failed_calls)?,
            spilled_calls: add(self.spilled_calls, other.spilled_calls)?,
            unpriced_calls: add(self.unpriced_calls, other.unpriced_calls)?,
            estimated_calls: add(self.estimated_calls, other.estimated_calls)?,
            tokens: Tokens {
                input: add(a.input, b.input)?,
                output: add(a.output, b.output)?,
                cached: add(a.cached, b.cached)?,
                reasoning: add(a.reasoning, b.reasoning)?,
                audio_input: add(a.audio_input, b.audio_input)?,
                audio_output: add(a.audio_output, b.audio_output)?,
                image_input: add(a.image_input, b.image_input)?,
                cached_audio: add(a.cached_audio, b.cached_audio)?,
                cached_image: add(a.cached_image, b.cached_image)?,
            },
            estimated_tokens: add(self.estimated_tokens, other.estimated_tokens)?,
            spilled_tokens: add(self.spilled_tokens, other.spilled_tokens)?,
            cost: exact(self.cost, other.cost)?,
            spilled_cost: exact(self.spilled_cost, other.spilled_cost)?,
            weighted: add(self.weighted, other.weighted)?,
            hit_calls: add(self.hit_calls, other.hit_calls)?,
            coalesced_calls: add(self.coalesced_calls, other.coalesced_calls)?,
            saved_tokens: add(self.saved_tokens, other.saved_tokens)?,
            saved_cost: exact(self.saved_cost, other.saved_cost)?,
        })
    }

    /// Reads a sum's row.
    ///
    /// # Errors
    /// When one of its amounts is no decimal number.
    pub fn read(row: &Row) -> Result<Self, StoreError> {
        let n = |name| row.fields.get_number(name);
        Ok(Self {
            calls: n("calls"),
            failed_calls: n("failed_calls"),
            spilled_calls: n("spilled_calls"),
            unpriced_calls: n("unpriced_calls"),
            estimated_calls: n("estimated_calls"),
            tokens: row.fields.get_tokens(),
            estimated_tokens: n("estimated_tokens"),
            spilled_tokens: n("spilled_tokens"),
            cost: amount(row, "cost")?,
            spilled_cost: amount(row, "spilled_cost")?,
            weighted: n("weighted_tokens"),
            hit_calls: n("hit_calls"),
            coalesced_calls: n("coalesced_calls"),
            saved_tokens: n("saved_tokens"),
            saved_cost: amount(row, "saved_cost")?,
        })
    }

    /// These fields, and the sum.
    fn onto(&self, fields: Fields) -> Fields {
        fields
            .number("calls", self.calls)
            .number("failed_calls", self.failed_calls)
            .number("spilled_calls", self.spilled_calls)
            .number("unpriced_calls", self.unpriced_calls)
            .number("estimated_calls", self.estimated_calls)
            .tokens(&self.tokens)
            .number("estimated_tokens", self.estimated_tokens)
            .number("spilled_tokens", self.spilled_tokens)
            .number("weighted_tokens", self.weighted)
            .text("cost", self.cost.to_string())
            .text("spilled_cost", self.spilled_cost.to_string())
            .number("hit_calls", self.hit_calls)
            .number("coalesced_calls", self.coalesced_calls)
            .number("saved_tokens", self.saved_tokens)
            .text("saved_cost", self.saved_cost.to_string())
    }
}

/// `None` above what a field holds.
fn add(a: u64, b: u64) -> Option<u64> {
    a.checked_add(b).filter(|sum| i64::try_from(*sum).is_ok())
}

/// `None` where the sum would have to be rounded, or is too large.
fn exact(a: Decimal, b: Decimal) -> Option<Decimal> {
    let sum = a.checked_add(b)?;
    (sum.checked_sub(b)? == a && sum.checked_sub(a)? == b).then_some(sum)
}

fn amount(row: &Row, name: &str) -> Result<Decimal, StoreError> {
    let text = row.fields.get_text(name);
    if text.is_empty() {
        return Ok(Decimal::ZERO);
    }
    Decimal::from_str_exact(text).map_err(|_| {
        let (partition, row) = (&row.key.partition, &row.key.row);
        StoreError::Damaged(format!("{name} of {partition} {row} is no decimal number"))
    })
}

/// What a sum is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Of<'a> {
    /// An hour of a PTU deployment, two digits.
    PtuHour {
        hour: String,
        backend: &'a str,
        deployment: &'a str,
        model: &'a str,
    },
    /// A model at a deployment.
    Model {
        model: &'a str,
        kind: &'static str,
        backend: &'a str,
        deployment: &'a str,
    },
}

impl<'a> Of<'a> {
    /// The sums that an event counts in: one or two.
    pub(super) fn all(event: &'a UsageEvent) -> impl Iterator<Item = Self> {
        let served = event.served();
        let (backend, deployment): (&str, &str) = (served.backend, served.deployment);
        let model = Self::Model {
            model: &event.model,
            kind: served.kind.map_or("", Kind::as_str),
            backend,
            deployment,
        };
        let hour = (served.kind == Some(Kind::Ptu)).then(|| Self::PtuHour {
            hour: hour(event),
            backend,
            deployment,
            model: &event.model,
        });
        [Some(model), hour].into_iter().flatten()
    }

    /// The key of its row in a shard; the first one's has no number.
    pub(super) fn row(&self, shard: u32) -> String {
        let mut key = match self {
            Self::Model {
                model,
                kind,
                backend,
                deployment,
            } => format!(
                "{SUM}{}|{kind}|{}|{}",
                encode_key(model),
                encode_key(backend),
                encode_key(deployment)
            ),
            Self::PtuHour {
                hour,
                backend,
                deployment,
                model,
            } => format!(
                "{PTU}{hour}|{}|{}|{}",
                encode_key(model),
                encode_key(backend),
                encode_key(deployment)
            ),
        };
        if shard > 0 {
            key += &format!("|{shard}");
        }
        key
    }

    /// What stands in its row.
    pub(super) fn fields(&self, app: &str, day: &str, sum: &Sum) -> Fields {
        let fields = Fields::new().text("app", app).text("day", day);
        let fields = match self {
            Self::Model {
                model,
                kind,
                backend,
                deployment,
            } => fields
                .text("model", *model)
                .text("kind", *kind)
                .text("backend", *backend)
                .text("deployment", *deployment),
            Self::PtuHour {
                hour,
                backend,
                deployment,
                model,
            } => fields
                .text("hour", &**hour)
                .text("model", *model)
                .text("backend", *backend)
                .text("deployment", *deployment),
        };
        sum.onto(fields)
    }
}

/// The UTC hour of an event, two digits.
pub(super) fn hour(event: &UsageEvent) -> String {
    let time = event.time.rfc3339();
    time.get(11..13).unwrap_or("00").to_owned()
}

/// What an app spent on a UTC day, such as `2026-11-23`.
///
/// # Errors
/// When the store fails, or a sum is no decimal number.
pub async fn spent(store: &dyn Store, app: &str, day: &str) -> Result<Decimal, StoreError> {
    let range = Range::of(chargeback::partition(app, day), SUM);
    let mut pages = Pages::new(store, Table::Chargeback, range);
    let mut total = Decimal::ZERO;
    while let Some(rows) = pages.next().await? {
        for row in &rows {
            total = total.saturating_add(amount(row, "cost")?);
        }
    }
    Ok(total)
}

/// What an app's calls of a UTC day came to at each deployment, by backend and deployment.
///
/// # Errors
/// When the store fails, or a sum is no decimal number.
pub async fn by_deployment(
    store: &dyn Store,
    app: &str,
    day: &str,
) -> Result<BTreeMap<[Arc<str>; 2], Counted>, StoreError> {
    let range = Range::of(chargeback::partition(app, day), SUM);
    let mut pages = Pages::new(store, Table::Chargeback, range);
    let mut all: BTreeMap<[Arc<str>; 2], Counted> = BTreeMap::new();
    while let Some(rows) = pages.next().await? {
        for row in &rows {
            let of = ["backend", "deployment"].map(|name| Arc::from(row.fields.get_text(name)));
            let sum = Sum::read(row)?;
            all.entry(of).or_default().add(&Counted {
                requests: asked(&sum),
                prompt: sum.tokens.input,
                generated: sum.tokens.output,
                estimated: sum.estimated_tokens,
            });
        }
    }
    Ok(all)
}

/// The calls of a sum that a backend was asked for and answered well. Those that were given the answer of the
/// same call, which was under way, have a part of its tokens, and no call of their own.
const fn asked(sum: &Sum) -> u64 {
    let answered = sum.calls.saturating_sub(sum.failed_calls);
    answered.saturating_sub(sum.coalesced_calls)
}
