//! Provisioned throughput, looked back on: what another number of PTUs would have come to. From the hours
//! that the console keeps, of the last four weeks.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::Console;
use super::capacity::{Capacity, low_weighted, weighted};
use super::now::percent;
use crate::gateway::event::{Kind, Tokens, UsageEvent, UsageSource};
use crate::gateway::metrics::Total;
use crate::gateway::metrics::shard::{Count, Size};
use crate::gateway::pacing::rule::Pace;
use crate::gateway::ptu::{ModelRate, Utilization};
use crate::gateway::time::{DAY_MS, Timestamp};
use crate::gateway::what_if::{self, Hour, Replay, Terms};
use crate::store::StoreError;
use crate::store::console::{self, Counted, HOUR_MS, Span};

/// How far back it looks, ms.
const BACK_MS: u64 = 28 * DAY_MS;

/// Most PTUs that can be asked for.
const MOST_PTUS: u32 = 100_000;

/// Most tokens a minute that can be asked for.
pub(super) const MOST_TPM: u32 = 1_000_000_000;

/// Numbers of PTUs that are compared.
const COMPARED: u32 = 12;

/// What is asked for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// The model; absent or empty: the first with PTUs.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub(super) model: String,
    /// The number of PTUs; absent or 0: as many as there are.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100_000))]
    pub(super) ptus: u32,
    /// The lower limit of pacing, percent; absent: the configuration's. One that is not below the upper
    /// limit counts as one below it.
    #[serde(default, deserialize_with = "number")]
    #[schemars(with = "u32", range(min = 0, max = 99))]
    pub(super) lower_percent: Option<u32>,
    /// The upper limit of pacing, percent; absent: the configuration's.
    #[serde(default, deserialize_with = "number")]
    #[schemars(with = "u32", range(min = 1, max = 100))]
    pub(super) upper_percent: Option<u32>,
    /// Slots of low-priority calls; absent: the configuration's.
    #[serde(default, deserialize_with = "number")]
    #[schemars(with = "u32", range(min = 1, max = 1000))]
    pub(super) slots: Option<u32>,
    /// Most tokens a minute that pay-as-you-go serves; absent: any number.
    #[serde(default, deserialize_with = "number")]
    #[schemars(with = "u32", range(min = 0, max = 1_000_000_000))]
    pub(super) payg_tpm: Option<u32>,
}

/// A number; an empty field of a form is none.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    let text = Cow::<'_, str>::deserialize(from)?;
    match &*text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

impl Wish {
    /// What is wrong with it.
    pub(super) fn mistake(&self) -> Option<&'static str> {
        if self.model.chars().count() > 64 {
            return Some("A model's name has at most 64 characters.");
        }
        if self.ptus > MOST_PTUS {
            return Some("The most are 100,000 PTUs.");
        }
        let is_out = |number: Option<u32>, range: RangeInclusive<u32>| {
            number.is_some_and(|number| !range.contains(&number))
        };
        if is_out(self.lower_percent, 0..=99) {
            return Some("The lower limit is from 0 to 99 %.");
        }
        if is_out(self.upper_percent, 1..=100) {
            return Some("The upper limit is from 1 to 100 %.");
        }
        if is_out(self.payg_tpm, 0..=MOST_TPM) {
            return Some("The most are 1,000,000,000 tokens a minute.");
        }
        is_out(self.slots, 1..=1000).then_some("Slots are from 1 to 1,000.")
    }

    /// The rule that is replayed: the configuration's with what is wished for in its place; `None` where
    /// neither paces.
    fn pace(&self, configured: Option<Pace>) -> Option<Pace> {
        let is_wished = [self.lower_percent, self.upper_percent, self.slots];
        let is_wished = is_wished.iter().any(Option::is_some);
        let base = configured.or_else(|| is_wished.then_some(Pace::DEFAULT))?;
        let limit = |wished: Option<u32>, other| {
            wished.map_or(other, |percent| Utilization::of_percent(percent.into()))
        };
        let upper = limit(self.upper_percent, base.upper);
        let below = Utilization::of_tenths(upper.tenths().saturating_sub(10));
        Some(Pace {
            slots: self.slots.unwrap_or(base.slots),
            lower: limit(self.lower_percent, base.lower).min(below),
            upper,
        })
    }
}

/// What another number of PTUs would have come to.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct WhatIf {
    /// The model; empty where none has PTUs.
    pub(super) model: String,
    /// The models with PTUs.
    pub(super) models: Vec<String>,
    /// The currency of all amounts.
    pub(super) currency: String,
    /// The first hour that is replayed, RFC 3339; empty where there is none.
    pub(super) from: String,
    /// Hours that are replayed.
    pub(super) hours: usize,
    /// The PTUs that there are.
    pub(super) ptus_now: u32,
    /// Input tokens a minute that a PTU counts for.
    pub(super) tpm_per_ptu: u64,
    /// Input tokens that a generated token counts as.
    pub(super) output_ratio: u64,
    /// What a PTU costs an hour, where that is known.
    pub(super) ptu_hour: Option<String>,
    /// What a million weighted tokens cost at pay-as-you-go, where that is known.
    pub(super) payg_million: Option<String>,
    /// Percent of its time that a PTU has to be used to cost no more than pay-as-you-go, where prices are
    /// known.
    pub(super) break_even_percent: Option<f64>,
    /// How low-priority work is paced in the replay; `null`: it is work like any other.
    pub(super) pacing: Option<Paced>,
    /// Percent of the demand that was of low-priority calls.
    pub(super) low_percent: Option<f64>,
    /// Most tokens a minute that pay-as-you-go serves in the replay; `null`: any number.
    pub(super) payg_tpm: Option<u32>,
    /// The number that was asked for.
    pub(super) asked: Option<Outcome>,
    /// The cheapest number, where prices are known.
    pub(super) cheapest: Option<Outcome>,
    /// Some numbers from none to enough for every hour.
    pub(super) compared: Vec<Outcome>,
}

/// How low-priority work is paced in a replay.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Paced {
    /// Slots.
    pub(super) slots: u32,
    /// All are open up to this utilization, percent.
    pub(super) lower_percent: f64,
    /// None is open from this one on.
    pub(super) upper_percent: f64,
    /// Weighted tokens a minute that a call in a slot does, as the recorded ones did; `null`: not known,
    /// and taken for as many as there is room for.
    pub(super) slot_tpm: Option<u64>,
}

/// What some PTUs would have come to.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Outcome {
    /// How many.
    pub(super) ptus: u32,
    /// Percent of their capacity that would have been used; `null` of none.
    pub(super) utilization_percent: Option<f64>,
    /// Percent of the demand that would have spilled.
    pub(super) spilled_percent: Option<f64>,
    /// Percent of the demand that pay-as-you-go would have refused at its limit.
    pub(super) refused_percent: Option<f64>,
    /// Percent of the demand that would still have waited at the end: low-priority work.
    pub(super) left_percent: Option<f64>,
    /// Percent of the hours at whose end low-priority work would have waited.
    pub(super) waiting_hours_percent: Option<f64>,
    /// Percent of the hours in which they would have been full.
    pub(super) full_hours_percent: Option<f64>,
    /// What they would have cost.
    pub(super) ptu_cost: Option<String>,
    /// What the rest would have cost at pay-as-you-go.
    pub(super) payg_cost: Option<String>,
    /// Both together.
    pub(super) cost: Option<String>,
}

/// How long what was read is good, ms.
const GOOD_MS: u64 = 60_000;

/// What was read last, and when.
pub(super) type Kept = tokio::sync::Mutex<Option<(Timestamp, Arc<Past>)>>;

/// What is kept of the last weeks.
#[derive(Debug)]
pub(super) struct Past {
    counted: Vec<Counted>,
    /// The hours from the first that anything was counted in to the last that is over.
    pub(super) hours: Vec<Timestamp>,
}

impl Past {
    /// What is kept, as it was a minute ago at most.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn read(console: &Console) -> Result<Arc<Self>, StoreError> {
        let now = console.relay.clock.now();
        let mut kept = console.past.lock().await;
        if let Some((read, past)) = &*kept
            && now.ms_since(*read) < GOOD_MS
        {
            return Ok(Arc::clone(past));
        }
        let last = Timestamp::from_unix_ms(now.unix_ms() - now.unix_ms() % HOUR_MS);
        let from = Timestamp::from_unix_ms(last.unix_ms().saturating_sub(BACK_MS));
        let mut counted = match &console.store {
            Some(store) => console::read(store.as_ref(), Span::Hour, from, now).await?,
            None => Vec::new(),
        };
        counted.retain(|one| one.start < last);
        let past = Arc::new(Self::of(counted, last));
        *kept = Some((now, Arc::clone(&past)));
        Ok(past)
    }

    fn of(counted: Vec<Counted>, end: Timestamp) -> Self {
        let first = counted.iter().map(|one| one.start).min();
        let hours = std::iter::successors(first, |start| Some(start.plus_ms(HOUR_MS)));
        Self {
            hours: hours.take_while(|start| *start < end).collect(),
            counted,
        }
    }

    /// What was counted of some deployments, by hour: weighted tokens, 0 where nothing was.
    pub(super) fn hours(
        &self,
        is_meant: impl Fn(&Arc<str>, &Arc<str>, &Arc<str>) -> bool,
        rate: &ModelRate,
    ) -> Vec<Hour> {
        let mut by_start: BTreeMap<Timestamp, (u64, u64)> = BTreeMap::new();
        for one in &self.counted {
            for roll in &one.rollup.deployments {
                if is_meant(&roll.backend, &roll.deployment, &roll.model) {
                    let get = |count| roll.get(count);
                    let (demand, low) = by_start.entry(one.start).or_default();
                    *demand = demand.saturating_add(weighted(get, rate));
                    *low = low.saturating_add(low_weighted(get, rate));
                }
            }
        }
        let hours = self.hours.iter().map(|start| {
            let (demand, low) = by_start.get(start).copied().unwrap_or_default();
            Hour {
                start: *start,
                demand,
                low,
            }
        });
        hours.collect()
    }

    /// All that was counted of a model's deployments.
    fn total(&self, model: &str) -> Total {
        let mut total = Total::none(&Size::ALL);
        let rolls = self.counted.iter().flat_map(|one| &one.rollup.deployments);
        let rolls = rolls.filter(|roll| *roll.model == *model);
        rolls.for_each(|roll| total.add(&roll.total()));
        total
    }
}

/// Replays the last weeks.
///
/// # Errors
/// When the store fails.
pub(super) async fn what_if(console: &Console, wish: &Wish) -> Result<WhatIf, StoreError> {
    let past = Past::read(console).await?;
    let mut models: Vec<&Arc<str>> = console
        .capacities
        .iter()
        .map(|(_, one)| &one.model)
        .collect();
    models.sort();
    models.dedup();
    let model = match models.first() {
        Some(first) if wish.model.is_empty() => first,
        _ => &wish.model[..],
    };
    let mut found = WhatIf {
        model: model.to_owned(),
        models: models.iter().map(|model| model.to_string()).collect(),
        currency: console.accounts.currency.clone(),
        from: past
            .hours
            .first()
            .map_or(String::new(), |first| first.rfc3339()),
        hours: past.hours.len(),
        ptus_now: 0,
        tpm_per_ptu: 0,
        output_ratio: 0,
        ptu_hour: None,
        payg_million: None,
        break_even_percent: None,
        pacing: None,
        low_percent: None,
        payg_tpm: wish.payg_tpm,
        asked: None,
        cheapest: None,
        compared: Vec::new(),
    };
    let ptus: Vec<_> = console
        .capacities
        .iter()
        .filter(|(_, one)| *one.model == *model)
        .collect();
    let Some((_, first)) = ptus.first() else {
        return Ok(found);
    };
    let total = past.total(model);
    let terms = terms(console, first, &total, wish);
    let hours = past.hours(|_, _, of| **of == *model, &terms.rate);
    found.ptus_now = ptus.iter().map(|(_, one)| one.ptus).sum();
    found.tpm_per_ptu = terms.rate.input_tpm_per_ptu;
    found.output_ratio = terms.rate.output_ratio;
    found.ptu_hour = terms.ptu_hour.map(|price| price.normalize().to_string());
    found.payg_million = terms
        .payg_million
        .map(|price| price.round_dp(4).normalize().to_string());
    found.break_even_percent = terms.break_even().and_then(one_decimal);
    found.pacing = terms.pacing.as_ref().map(paced);
    if hours.is_empty() {
        return Ok(found);
    }
    let demand = |of: fn(&Hour) -> u64| hours.iter().map(of).sum();
    found.low_percent = percent(demand(|hour| hour.low), demand(|hour| hour.demand));
    let number = if wish.ptus > 0 {
        wish.ptus
    } else {
        found.ptus_now
    };
    let replayed = |ptus| outcome(&what_if::replay(&hours, ptus, &terms), hours.len());
    found.asked = Some(replayed(number));
    found.cheapest = what_if::cheapest(&hours, &terms).map(|replay| outcome(&replay, hours.len()));
    let most = what_if::enough(&hours, &terms)
        .max(number)
        .max(found.ptus_now);
    let step = most.div_ceil(COMPARED).max(1);
    found.compared = (0..=most.div_ceil(step))
        .map(|place| replayed((place * step).min(most)))
        .collect();
    Ok(found)
}

fn outcome(replay: &Replay, hours: usize) -> Outcome {
    let hours = u64::try_from(hours).unwrap_or(u64::MAX);
    let full = u64::try_from(replay.full_hours).unwrap_or(u64::MAX);
    let waiting = u64::try_from(replay.waiting_hours).unwrap_or(u64::MAX);
    let demand = replay.served + replay.spilled + replay.refused + replay.left;
    let text = |cost: Option<Decimal>| cost.map(|cost| cost.round_dp(2).to_string());
    Outcome {
        refused_percent: percent(replay.refused, demand),
        left_percent: percent(replay.left, demand),
        waiting_hours_percent: percent(waiting, hours),
        ptus: replay.ptus,
        utilization_percent: percent(replay.served, replay.capacity),
        spilled_percent: percent(replay.spilled, demand),
        full_hours_percent: percent(full, hours),
        ptu_cost: text(replay.ptu_cost),
        payg_cost: text(replay.payg_cost),
        cost: text(replay.cost()),
    }
}

/// To one digit after the point.
fn one_decimal(number: Decimal) -> Option<f64> {
    number.round_dp(1).try_into().ok()
}

fn paced(pacing: &what_if::Pacing) -> Paced {
    Paced {
        slots: pacing.pace.slots,
        lower_percent: super::pacing::percent(pacing.pace.lower),
        upper_percent: super::pacing::percent(pacing.pace.upper),
        slot_tpm: pacing.slot_per_hour.map(|tokens| tokens / 60),
    }
}

/// What a call in a slot does in an hour, in weighted tokens: what the average call weighed, in the
/// median of their times. `None` before there were any.
fn slot_per_hour(total: &Total, rate: &ModelRate) -> Option<u64> {
    let ms = total.quantile(Size::Duration, 50)?.max(1);
    let calls = total.size(Size::Duration)?.count().max(1);
    let each = u128::from(weighted(|count| total.get(count), rate) / calls);
    u64::try_from(each * u128::from(HOUR_MS) / u128::from(ms)).ok()
}

/// Pay-as-you-go's limit in weighted tokens an hour: tokens count there as they are, so that the recorded
/// calls say what they weigh.
fn payg_per_hour(tpm: u32, total: &Total, rate: &ModelRate) -> u64 {
    let tokens = u128::from(tpm) * 60;
    let weight = tokens * u128::from(weighted(|count| total.get(count), rate));
    let weight = weight.checked_div(total.tokens().into()).unwrap_or(tokens);
    u64::try_from(weight).unwrap_or(u64::MAX)
}

/// The model's terms: what a PTU of its first deployment costs, and what its average call costs at
/// its first pay-as-you-go deployment.
fn terms(console: &Console, capacity: &Capacity, total: &Total, wish: &Wish) -> Terms {
    let now = console.relay.clock.now();
    let prices = console.accounts.prices();
    let priced = console
        .capacities
        .iter()
        .filter(|(_, one)| one.model == capacity.model);
    let mut priced = priced.filter_map(|((backend, deployment), one)| {
        let known = prices.ptu(backend, deployment, now)?;
        known.per_hour?.checked_div(Decimal::from(one.ptus))
    });
    let rate = capacity.rate;
    Terms {
        rate,
        ptu_hour: priced.next(),
        payg_million: payg_million(console, capacity, total, now),
        pacing: wish
            .pace(console.relay.slots.gauge().pace())
            .map(|pace| what_if::Pacing {
                pace,
                slot_per_hour: slot_per_hour(total, &rate),
            }),
        payg_per_hour: wish.payg_tpm.map(|tpm| payg_per_hour(tpm, total, &rate)),
    }
}

fn payg_million(
    console: &Console,
    capacity: &Capacity,
    total: &Total,
    now: Timestamp,
) -> Option<Decimal> {
    let names = console.relay.metrics.names();
    let mut payg = names.deployments.iter();
    let payg = payg.find(|one| one.kind == Kind::Payg && one.model == capacity.model)?;
    let calls = total.size(Size::FirstByte)?.count().max(1);
    let average = |count| total.get(count) / calls;
    let call = UsageEvent {
        time: now,
        model: Arc::clone(&payg.model),
        backend: Arc::clone(&payg.backend),
        deployment: Arc::clone(&payg.deployment),
        kind: Some(Kind::Payg),
        tokens: Tokens {
            input: average(Count::Input),
            output: average(Count::Output),
            cached: average(Count::Cached),
            reasoning: average(Count::Reasoning),
            ..Tokens::default()
        },
        usage: UsageSource::Reported,
        ..UsageEvent::default()
    };
    let cost = console.accounts.prices().charge(&call).cost?;
    let tokens = &call.tokens;
    let weight = tokens.input.saturating_sub(tokens.cached)
        + tokens.output.saturating_mul(capacity.rate.output_ratio);
    cost.checked_mul(Decimal::from(1_000_000))?
        .checked_div(Decimal::from(weight))
}
