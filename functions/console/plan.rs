//! Provisioned throughput, looked back on: when it was idle, and what another number of PTUs would
//! have come to. From the hours that the console keeps, of the last four weeks.

use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Console;
use super::capacity::{Capacity, weighted};
use super::now::percent;
use crate::gateway::event::{Kind, Tokens, UsageEvent, UsageSource};
use crate::gateway::metrics::Total;
use crate::gateway::metrics::shard::{Count, Size};
use crate::gateway::time::{DAY_MS, Timestamp};
use crate::gateway::what_if::{self, Hour, Replay, Terms, WEEK_HOURS, WeekHour};
use crate::store::StoreError;
use crate::store::console::{self, Counted, HOUR_MS, Span};

/// How far back it looks, ms.
const BACK_MS: u64 = 28 * DAY_MS;

/// Most PTUs that can be asked for.
const MOST_PTUS: u32 = 100_000;

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
}

impl Wish {
    /// What is wrong with it.
    pub(super) fn mistake(&self) -> Option<&'static str> {
        if self.model.chars().count() > 64 {
            return Some("A model's name has at most 64 characters.");
        }
        (self.ptus > MOST_PTUS).then_some("The most are 100,000 PTUs.")
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
    /// The number that was asked for.
    pub(super) asked: Option<Outcome>,
    /// The cheapest number, where prices are known.
    pub(super) cheapest: Option<Outcome>,
    /// Some numbers from none to enough for every hour.
    pub(super) compared: Vec<Outcome>,
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
    /// Percent of the hours in which they would have been full.
    pub(super) full_hours_percent: Option<f64>,
    /// What they would have cost.
    pub(super) ptu_cost: Option<String>,
    /// What the rest would have cost at pay-as-you-go.
    pub(super) payg_cost: Option<String>,
    /// Both together.
    pub(super) cost: Option<String>,
}

/// When provisioned throughput is idle.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct IdleWeek {
    /// The currency of all amounts.
    pub(super) currency: String,
    /// Hours that it is of.
    pub(super) hours: usize,
    /// The hours of a week in UTC, Monday's first: 168, or none where no PTU's capacity is known.
    pub(super) week: Vec<IdleHour>,
    /// What idle PTUs cost in an average week.
    pub(super) cost_per_week: String,
}

/// An hour of the week.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct IdleHour {
    /// Percent of all PTUs that nobody used in it; `null` where nothing was recorded.
    pub(super) idle_percent: Option<f64>,
    /// What that cost in an average week.
    pub(super) cost: String,
}

/// What is kept of the last weeks.
struct Past {
    counted: Vec<Counted>,
    /// The hours from the first that anything was counted in to the last that is over.
    hours: Vec<Timestamp>,
}

impl Past {
    async fn read(console: &Console) -> Result<Self, StoreError> {
        let now = console.relay.clock.now();
        let last = Timestamp::from_unix_ms(now.unix_ms() - now.unix_ms() % HOUR_MS);
        let from = Timestamp::from_unix_ms(last.unix_ms().saturating_sub(BACK_MS));
        let mut counted = match &console.store {
            Some(store) => console::read(store.as_ref(), Span::Hour, from, now).await?,
            None => Vec::new(),
        };
        counted.retain(|one| one.start < last);
        Ok(Self::of(counted, last))
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
    fn hours(
        &self,
        is_meant: impl Fn(&Arc<str>, &Arc<str>, &Arc<str>) -> bool,
        weigh: impl Fn(&Total) -> u64,
    ) -> Vec<Hour> {
        let mut by_start: BTreeMap<Timestamp, u64> = BTreeMap::new();
        for one in &self.counted {
            for roll in &one.rollup.deployments {
                if is_meant(&roll.backend, &roll.deployment, &roll.model) {
                    *by_start.entry(one.start).or_default() += weigh(&roll.total());
                }
            }
        }
        let hours = self.hours.iter().map(|start| Hour {
            start: *start,
            demand: by_start.get(start).copied().unwrap_or_default(),
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
    let terms = terms(console, first, &past.total(model));
    let hours = past.hours(
        |_, _, of| **of == *model,
        |total| weighted(total, &terms.rate),
    );
    found.ptus_now = ptus.iter().map(|(_, one)| one.ptus).sum();
    found.tpm_per_ptu = terms.rate.input_tpm_per_ptu;
    found.output_ratio = terms.rate.output_ratio;
    found.ptu_hour = terms.ptu_hour.map(|price| price.normalize().to_string());
    found.payg_million = terms
        .payg_million
        .map(|price| price.round_dp(4).normalize().to_string());
    if hours.is_empty() {
        return Ok(found);
    }
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
    let text = |cost: Option<Decimal>| cost.map(|cost| cost.round_dp(2).to_string());
    Outcome {
        ptus: replay.ptus,
        utilization_percent: percent(replay.served, replay.capacity),
        spilled_percent: percent(replay.spilled, replay.served + replay.spilled),
        full_hours_percent: percent(full, hours),
        ptu_cost: text(replay.ptu_cost),
        payg_cost: text(replay.payg_cost),
        cost: text(replay.cost()),
    }
}

/// The model's terms: what a PTU of its first deployment costs, and what its average call costs at
/// its first pay-as-you-go deployment.
fn terms(console: &Console, capacity: &Capacity, total: &Total) -> Terms {
    let now = console.relay.clock.now();
    let prices = &console.accounts.prices;
    let priced = console
        .capacities
        .iter()
        .filter(|(_, one)| one.model == capacity.model);
    let mut priced = priced.filter_map(|((backend, deployment), one)| {
        let known = prices.ptu(backend, deployment, now)?;
        known.per_hour?.checked_div(Decimal::from(one.ptus))
    });
    Terms {
        rate: capacity.rate,
        ptu_hour: priced.next(),
        payg_million: payg_million(console, capacity, total, now),
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
    let cost = console.accounts.prices.charge(&call).cost?;
    let tokens = &call.tokens;
    let weight = tokens.input.saturating_sub(tokens.cached)
        + tokens.output.saturating_mul(capacity.rate.output_ratio);
    cost.checked_mul(Decimal::from(1_000_000))?
        .checked_div(Decimal::from(weight))
}

/// Looks when PTUs were idle.
///
/// # Errors
/// When the store fails.
pub(super) async fn idle(console: &Console) -> Result<IdleWeek, StoreError> {
    let past = Past::read(console).await?;
    let now = console.relay.clock.now();
    let mut week = [WeekHour::default(); WEEK_HOURS];
    for ((backend, deployment), capacity) in console.capacities.iter() {
        let hours = past.hours(
            |b, d, _| b == backend && d == deployment,
            |total| capacity.weighted(total),
        );
        let price = console.accounts.prices.ptu(backend, deployment, now);
        let price = price.and_then(|price| price.per_hour);
        if capacity.per_hour > 0 {
            what_if::add_idle(&mut week, &hours, capacity.per_hour, price);
        }
    }
    let any = week.iter().any(|hour| hour.capacity > 0);
    let cost: Decimal = week.iter().map(|hour| hour.cost).sum();
    let hours = week.iter().map(|hour| IdleHour {
        idle_percent: percent(hour.idle, hour.capacity),
        cost: hour.cost.round_dp(2).to_string(),
    });
    Ok(IdleWeek {
        currency: console.accounts.currency.clone(),
        hours: past.hours.len(),
        week: if any { hours.collect() } else { Vec::new() },
        cost_per_week: cost.round_dp(2).to_string(),
    })
}
