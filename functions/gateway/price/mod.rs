//! What a call costs, and what a PTU costs an hour.
//!
//! Pay-as-you-go is paid by the token: [`Prices::charge`] says what a call costs. Provisioned
//! throughput is paid by the hour, used or not: a call at a PTU has no cost of its own, but a weight,
//! by which the hour's price ([`Prices::ptu`]) is shared out afterwards ([`super::bill`]).
//!
//! Prices are the configuration's own (`[[price]]`), else those of a dated list that comes with the
//! program ([`list`]). What has no price is `None`, never zero, so that it can be counted and shown.

pub mod list;
mod own;
mod rate;
pub mod retail;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::event::{Kind, Served, Tokens, UsageEvent, UsageSource};
use super::ptu::ModelRate;
use super::service_tier::ServiceTier;
use super::spillover;
use super::time::Timestamp;

pub use self::own::OwnPrice;
pub use self::rate::{COST_DECIMALS, Price, TokenPrices};

/// Minutes of an hour: PTU rates are quoted by the minute, their price by the hour.
const MINUTES: u64 = 60;

/// Where Azure may process a deployment's calls; it decides the price.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum RegionClass {
    /// Anywhere: deployments of type Global Standard and Global Provisioned.
    #[default]
    Global,
    /// In a group of regions, such as the EU's: Data Zone Standard and Data Zone Provisioned.
    DataZone,
    /// In the resource's region: Standard and Regional Provisioned.
    Regional,
}

impl RegionClass {
    /// The word used in the configuration and in the list.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::DataZone => "data-zone",
            Self::Regional => "regional",
        }
    }

    /// The class of a word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Global, Self::DataZone, Self::Regional]
            .into_iter()
            .find(|class| class.as_str() == text)
    }
}

/// What decides a deployment's prices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PricedDeployment {
    /// The backend's name.
    pub backend: Arc<str>,
    /// The deployment's name on the backend.
    pub name: Arc<str>,
    /// The model that apps ask for.
    pub model: Arc<str>,
    /// The model by Azure's name, with or without its version.
    pub base_model: Arc<str>,
    /// How it is paid for.
    pub kind: Kind,
    /// Where its calls may be processed.
    pub region_class: RegionClass,
    /// The backend's Azure region; empty where the configuration does not name it.
    pub region: Arc<str>,
    /// Its provisioned throughput units; 0 for pay-as-you-go, or where the configuration names none.
    pub ptus: u32,
    /// How many it had before, each until a moment; by these moments.
    pub before: Vec<(Timestamp, u32)>,
    /// When it was made: a PTU costs nothing before.
    pub since: Timestamp,
    /// When it was deleted, where it was: it costs nothing from then on.
    pub deleted: Option<Timestamp>,
}

impl PricedDeployment {
    /// Its provisioned throughput units at `at`.
    pub fn ptus_at(&self, at: Timestamp) -> u32 {
        let then = self.before.iter().find(|(until, _)| at < *until);
        then.map_or(self.ptus, |(_, ptus)| *ptus)
    }

    /// Whether it was there at `at`.
    pub fn is_there(&self, at: Timestamp) -> bool {
        self.since <= at && self.deleted.is_none_or(|deleted| at < deleted)
    }
}

/// What a call costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// In the configuration's currency, exact. `None` for a call at a PTU, whose cost is a share
    /// of the hour's, and for one without a price ([`Self::is_unpriced`]).
    pub cost: Option<Decimal>,
    /// What the call weighs in the sharing of a PTU's hour: input tokens, less cached ones, plus
    /// output tokens by the model's ratio. 0 for pay-as-you-go.
    pub weighted: u64,
    /// Whether the call used tokens of pay-as-you-go that no price is known of. Where only the tier that
    /// processed it has none, `cost` is what the call would cost in the standard one.
    pub is_unpriced: bool,
    /// What the tokens would have cost that the call was spared. 0 where they would have been a PTU's,
    /// which costs the same without them, and where no price is known of them.
    pub saved: Decimal,
}

/// A provisioned deployment's price and capacity at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PtuPrice {
    /// What all its PTUs cost an hour; `None` without a price, or a number of PTUs.
    pub per_hour: Option<Decimal>,
    /// What it can do in an hour, in weighted tokens. 0 where the number of PTUs is not known.
    pub capacity: u64,
    /// Its provisioned throughput units.
    pub ptus: u32,
}

/// All prices of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Prices {
    deployments: HashMap<(Arc<str>, Arc<str>), Known>,
    own: Vec<OwnPrice>,
    /// The list's prices are in dollars: with another currency it says nothing.
    uses_list: bool,
}

#[derive(Clone, Debug)]
struct Known {
    of: PricedDeployment,
    /// Whether the configuration has it no more: its last calls are still to be charged.
    is_gone: bool,
    /// The best first.
    rows: Vec<Row>,
}

/// A price in force from a moment on, for calls up to a size that a tier processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    from: Timestamp,
    up_to: u64,
    tier: ServiceTier,
    tokens: TokenPrices,
}

impl Prices {
    /// The prices of these deployments. `own` ones win over the list's, which are in US dollars and
    /// not used for another `currency`.
    pub fn new(
        deployments: impl IntoIterator<Item = PricedDeployment>,
        own: Vec<OwnPrice>,
        currency: &str,
    ) -> Self {
        let mut prices = Self {
            deployments: HashMap::new(),
            own,
            uses_list: currency == list::CURRENCY,
        };
        for of in deployments {
            let rows = prices.rows(&of);
            let key = (Arc::clone(&of.backend), Arc::clone(&of.name));
            let known = Known {
                of,
                is_gone: false,
                rows,
            };
            prices.deployments.insert(key, known);
        }
        prices
    }

    /// These prices, which know for calls that are on their way what deployments cost that only
    /// `before` has.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        for (key, known) in &before.deployments {
            let gone = || Known {
                is_gone: true,
                ..known.clone()
            };
            self.deployments.entry(key.clone()).or_insert_with(gone);
        }
        self
    }

    /// What a call costs.
    ///
    /// It is charged by the attempt that the backend charges for: one that failed and was retried
    /// elsewhere costs nothing. A call without a backend, as others than the relay may report, is
    /// pay-as-you-go of class global.
    pub fn charge(&self, event: &UsageEvent) -> Charge {
        Charge {
            saved: self.saved(event),
            ..self.used(event)
        }
    }

    /// What of the call's [`Charge`] is for the tokens that it used.
    fn used(&self, event: &UsageEvent) -> Charge {
        if event.usage == UsageSource::None && event.tokens.total() == 0 {
            return Charge::nothing();
        }
        let served = event.served();
        if served.kind == Some(Kind::Ptu) {
            let known = self.known(&served);
            let base_model = known.map_or(&event.model, |known| &known.of.base_model);
            return Charge {
                cost: None,
                weighted: weighted(&event.tokens, base_model),
                ..Charge::default()
            };
        }
        let (cost, is_of_tier) = self.cost(event, &served, &event.tokens);
        Charge {
            cost,
            is_unpriced: cost.is_none() || !is_of_tier,
            ..Charge::default()
        }
    }

    fn saved(&self, event: &UsageEvent) -> Decimal {
        let Some(saving) = event.saving.as_deref() else {
            return Decimal::ZERO;
        };
        let served = Served {
            backend: &saving.backend,
            deployment: &saving.deployment,
            kind: saving.kind,
        };
        if saving.kind == Some(Kind::Ptu) {
            return Decimal::ZERO;
        }
        let (cost, _) = self.cost(event, &served, &saving.tokens);
        cost.unwrap_or_default()
    }

    /// What tokens of a call cost at a pay-as-you-go deployment, and whether that is by a price of the tier
    /// that processed the call: without one it is charged as standard.
    fn cost(
        &self,
        event: &UsageEvent,
        served: &Served,
        tokens: &Tokens,
    ) -> (Option<Decimal>, bool) {
        let known = self.known(served).or_else(|| self.spilled_from(event));
        let rows = known.map_or_else(
            || Cow::Owned(self.rows(&unknown(event, served))),
            |known| Cow::Borrowed(&*known.rows),
        );
        let of_tier = in_force(&rows, event, event.service_tier);
        let row = of_tier.or_else(|| in_force(&rows, event, ServiceTier::Standard));
        let cost = row.and_then(|row| row.tokens.cost(tokens));
        (cost, of_tier.is_some())
    }

    /// What a provisioned deployment costs an hour at `at`, and can do in it. `None` where the
    /// configuration has no such PTU.
    pub fn ptu(&self, backend: &str, deployment: &str, at: Timestamp) -> Option<PtuPrice> {
        let key = (Arc::from(backend), Arc::from(deployment));
        let Known { of, is_gone, .. } = self.deployments.get(&key)?;
        if *is_gone || of.kind != Kind::Ptu {
            return None;
        }
        let unit = own::ptu_hour(&self.own, of, at).or_else(|| {
            let listed = || list::ptu_hour(of.region_class, &of.region, at);
            self.uses_list.then(listed).flatten()
        });
        let ptus = of.ptus_at(at);
        let per_hour = unit.filter(|_| ptus > 0).and_then(|unit| unit.times(ptus));
        let rate = ModelRate::of(&of.base_model).unwrap_or(ModelRate::ASSUMED);
        let per_minute = u64::from(ptus).saturating_mul(rate.input_tpm_per_ptu);
        Some(PtuPrice {
            per_hour,
            capacity: per_minute.saturating_mul(MINUTES),
            ptus,
        })
    }

    /// The provisioned deployments, those that were deleted too, in order of backend and name.
    pub fn ptus(&self) -> Vec<&PricedDeployment> {
        let all = self.deployments.values().filter(|known| !known.is_gone);
        let all = all.map(|known| &known.of);
        let mut ptus: Vec<_> = all.filter(|of| of.kind == Kind::Ptu).collect();
        ptus.sort_by(|a, b| (&a.backend, &a.name).cmp(&(&b.backend, &b.name)));
        ptus
    }

    fn known(&self, served: &Served) -> Option<&Known> {
        let key = (Arc::clone(served.backend), Arc::clone(served.deployment));
        self.deployments.get(&key)
    }

    /// The provisioned deployment that another one served the call for. The service lets a deployment spill
    /// over to one of the same model, version and class only, so that its tokens cost the same.
    fn spilled_from(&self, event: &UsageEvent) -> Option<&Known> {
        let attempts = &event.attempts;
        let place = attempts.iter().rposition(|attempt| attempt.billed)?;
        let from = spillover::provisioned(attempts, place)?;
        let key = (Arc::clone(&from.backend), Arc::clone(&from.deployment));
        self.deployments.get(&key)
    }

    /// The prices of a deployment's tokens, the best first: own ones before the list's, later ones
    /// before earlier ones, those of short calls before those of any.
    fn rows(&self, of: &PricedDeployment) -> Vec<Row> {
        let mut rows = own::rows(&self.own, of);
        if self.uses_list {
            rows.extend(list::rows(&of.base_model, of.region_class, &of.region));
        }
        rows
    }
}

impl Charge {
    const fn nothing() -> Self {
        Self {
            cost: Some(Decimal::ZERO),
            weighted: 0,
            is_unpriced: false,
            saved: Decimal::ZERO,
        }
    }
}

fn unknown(event: &UsageEvent, served: &Served) -> PricedDeployment {
    PricedDeployment {
        backend: Arc::clone(served.backend),
        name: Arc::clone(served.deployment),
        model: Arc::clone(&event.model),
        base_model: Arc::clone(&event.model),
        kind: Kind::Payg,
        region_class: RegionClass::Global,
        region: Arc::clone(&event.region),
        ptus: 0,
        before: Vec::new(),
        since: Timestamp::default(),
        deleted: None,
    }
}

/// A tier's price of an event's call, which is as long as what it used and what it was spared together: calls
/// that share an answer are charged by the price of that one.
fn in_force(rows: &[Row], event: &UsageEvent, tier: ServiceTier) -> Option<Row> {
    let spared = event.saving.as_ref();
    let spared = spared.map_or(0, |saving| saving.tokens.input);
    let input = event.tokens.input.saturating_add(spared);
    rows.iter()
        .find(|row| row.tier == tier && row.from <= event.time && input <= row.up_to)
        .copied()
}

/// What a call weighs in its PTU's bucket, by which Azure's own utilization goes too
/// ([`super::ptu`]).
fn weighted(tokens: &Tokens, base_model: &str) -> u64 {
    let rate = ModelRate::of(base_model).unwrap_or(ModelRate::ASSUMED);
    let input = tokens.input.saturating_sub(tokens.cached);
    input.saturating_add(tokens.output.saturating_mul(rate.output_ratio))
}
