//! The sums of table `chargeback`: what an app's calls of a day come to.
//!
//! They lie beside the day's calls and are written in the same transaction, so that a sum is always
//! that of its calls. There is one by model, kind, backend and deployment, `sum|MODEL|KIND|BACKEND|
//! DEPLOYMENT`, and one by hour, model and PTU deployment, `ptu|HH|MODEL|BACKEND|DEPLOYMENT`. The
//! deployment is the one that charges ([`UsageEvent::served`]). Instances that write the same sum at
//! once go on in further shards of it, which have `|` and a number after that: who reads adds them up.

use rust_decimal::Decimal;

use super::{Fields, Pages, Range, Row, Store, StoreError, Table, chargeback, encode_key};
use crate::gateway::event::{Kind, Outcome, Tokens, UsageEvent, UsageSource};
use crate::gateway::price::Charge;

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
    /// Calls that used something whose price is not known.
    pub unpriced_calls: u64,
    /// Calls whose tokens the gateway estimated.
    pub estimated_calls: u64,
    /// Tokens by sort.
    pub tokens: Tokens,
    /// Input and output tokens of spilled calls.
    pub spilled_tokens: u64,
    /// What the calls with a price cost.
    pub cost: Decimal,
    /// The part of `cost` of spilled calls.
    pub spilled_cost: Decimal,
    /// Tokens as a provisioned deployment counts them; 0 for pay-as-you-go.
    pub weighted: u64,
}

impl Sum {
    /// The sum of one call.
    pub fn of(event: &UsageEvent, charge: &Charge) -> Self {
        let failed = event.status >= 400 && event.status != CLIENT_GONE
            || matches!(event.outcome, Outcome::Failed | Outcome::Cut);
        let cost = charge.cost.unwrap_or_default();
        let if_spilled = |n: u64| if event.spilled { n } else { 0 };
        Self {
            calls: 1,
            failed_calls: failed.into(),
            spilled_calls: event.spilled.into(),
            unpriced_calls: charge.is_unpriced.into(),
            estimated_calls: (event.usage == UsageSource::Estimated).into(),
            tokens: event.tokens,
            spilled_tokens: if_spilled(event.tokens.total()),
            cost,
            spilled_cost: if event.spilled { cost } else { Decimal::ZERO },
            weighted: charge.weighted,
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
            },
            spilled_tokens: add(self.spilled_tokens, other.spilled_tokens)?,
            cost: exact(self.cost, other.cost)?,
            spilled_cost: exact(self.spilled_cost, other.spilled_cost)?,
            weighted: add(self.weighted, other.weighted)?,
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
            spilled_tokens: n("spilled_tokens"),
            cost: amount(row, "cost")?,
            spilled_cost: amount(row, "spilled_cost")?,
            weighted: n("weighted_tokens"),
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
            .number("spilled_tokens", self.spilled_tokens)
            .number("weighted_tokens", self.weighted)
            .text("cost", self.cost.to_string())
            .text("spilled_cost", self.spilled_cost.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::time::Timestamp;

    #[test]
    fn a_sum_that_would_be_rounded_is_none() {
        let large = Decimal::from_str_exact("79228162514264337593543950335").unwrap();
        let small = Decimal::from_str_exact("0.0000000000000000000000000001").unwrap();
        assert_eq!(exact(large, Decimal::ONE), None);
        assert_eq!(exact(Decimal::from(1_000_000_u32), small), None);
        assert_eq!(
            exact(small, small).unwrap().to_string(),
            "0.0000000000000000000000000002"
        );
        assert_eq!(add(i64::MAX.unsigned_abs(), 1), None);
    }

    #[test]
    fn models_that_share_a_ptu_have_hours_of_their_own() {
        let event = |model: &str| UsageEvent {
            time: Timestamp::from_unix_ms(1_795_453_590_000),
            model: model.into(),
            backend: "b".into(),
            deployment: "d".into(),
            kind: Some(Kind::Ptu),
            ..UsageEvent::default()
        };
        let rows = |model| -> Vec<String> {
            let event = event(model);
            Of::all(&event).map(|of| of.row(2)).collect()
        };
        assert_eq!(
            rows("gpt-4o"),
            ["sum|gpt-4o|ptu|b|d|2", "ptu|17|gpt-4o|b|d|2"]
        );
        assert_eq!(rows("chat"), ["sum|chat|ptu|b|d|2", "ptu|17|chat|b|d|2"]);
    }

    #[test]
    fn a_call_counts_for_what_it_was() {
        let mut event = UsageEvent {
            status: 200,
            outcome: Outcome::Completed,
            usage: UsageSource::Reported,
            spilled: true,
            kind: Some(Kind::Payg),
            tokens: Tokens {
                input: 5,
                output: 2,
                ..Tokens::default()
            },
            ..UsageEvent::default()
        };
        let priced = Charge {
            cost: Some(Decimal::TWO),
            weighted: 0,
            is_unpriced: false,
        };
        let sum = Sum::of(&event, &priced);
        assert_eq!((sum.calls, sum.failed_calls, sum.spilled_calls), (1, 0, 1));
        assert_eq!((sum.spilled_tokens, sum.spilled_cost), (7, Decimal::TWO));
        assert_eq!(sum.unpriced_calls, 0);
        let unpriced = Charge {
            cost: None,
            weighted: 0,
            is_unpriced: true,
        };
        assert_eq!(Sum::of(&event, &unpriced).unpriced_calls, 1);
        for (status, outcome, failed) in [
            (429, Outcome::Failed, 1),
            (400, Outcome::Completed, 1),
            (200, Outcome::Cut, 1),
            (499, Outcome::ClientGone, 0),
        ] {
            (event.status, event.outcome) = (status, outcome);
            assert_eq!(Sum::of(&event, &unpriced).failed_calls, failed, "{status}");
        }
    }
}
