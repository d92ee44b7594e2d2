//! What the Azure Retail Prices API says of prices, beside the list: where they differ, a change of
//! the list is proposed. Nothing is applied: who runs the gateway decides.
//!
//! The API's meters have no fields for model and sort, only a name such as `gpt 4o 1120 cached Inp glbl
//! Tokens`. A name is read only where it is unambiguous: one word for the class, one for the sort, and
//! what is left is what the list's own meter of a model leaves. Anything else is passed over; a name of
//! a clear form that the list does not have is noted as unlisted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::list::{self, PaygRow};
use super::rate::Price;
use super::{RegionClass, Row};
use crate::gateway::time::Timestamp;

/// Most names that are noted as unlisted.
const MAX_UNLISTED: usize = 500;

/// Most prices that are held, by model, class, region and sort.
const MAX_HELD: usize = 100_000;

/// An item of the API's answers, as far as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Item {
    /// For example `USD`.
    pub currency_code: String,
    /// The price, as it stands in the JSON.
    pub retail_price: Option<serde_json::Number>,
    /// What it is the price of: `1K`, `1M`, `1 Hour`.
    pub unit_of_measure: String,
    /// The region; `armRegionName`.
    pub arm_region_name: String,
    /// Since when.
    pub effective_start_date: String,
    /// The name.
    pub meter_name: String,
    /// For example `Azure OpenAI GPT5`.
    pub product_name: String,
    /// `Consumption`, `Reservation` or another.
    #[serde(rename = "type")]
    pub price_type: String,
    /// More than 0 where the price is for large amounts only.
    pub tier_minimum_units: Option<serde_json::Number>,
}

/// What a price is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SortOfPrice {
    /// A million prompt tokens.
    Input,
    /// A million prompt tokens from the cache.
    CachedInput,
    /// A million generated tokens.
    Output,
    /// An hour of one PTU.
    PtuHour,
}

/// A change of the list that is proposed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Proposal {
    /// The model by Azure's name; `PTU` for the hour of one.
    pub model: String,
    /// Where calls may be processed.
    pub region_class: RegionClass,
    /// What the price is of.
    pub sort: SortOfPrice,
    /// Only for calls with at most so many prompt tokens.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub up_to_input: Option<u64>,
    /// The list's price today; `None`: it has none.
    pub listed: Option<String>,
    /// The API's.
    pub retail: String,
    /// Since when that is in force, a UTC day.
    pub from: String,
    /// The meter's name.
    pub meter: String,
    /// The regions that it is in force in.
    pub regions: Vec<String>,
}

/// What a meter's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Meter {
    /// What is left of the name without class and sort.
    of: String,
    class: RegionClass,
    sort: SortOfPrice,
}

/// What the API says, as it is read.
#[derive(Debug, Default)]
pub struct Retail {
    held: BTreeMap<Place, Held>,
    unlisted: BTreeSet<String>,
}

/// What a price is held for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    model: &'static str,
    up_to: u64,
    class: RegionClass,
    sort: SortOfPrice,
    region: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    from: Timestamp,
    price: Price,
    meter: String,
    /// Another price since the same day: neither is told.
    is_ambiguous: bool,
}

/// The model that PTU hours are shown for.
const PTU: &str = "PTU";

impl Retail {
    /// Notes an item. Of several prices in force at `now` the one since the latest day counts.
    pub fn note(&mut self, item: &Item, now: Timestamp) {
        let plain = item.currency_code == list::CURRENCY
            && item.price_type == "Consumption"
            && item.product_name.starts_with("Azure OpenAI")
            && item
                .tier_minimum_units
                .as_ref()
                .and_then(serde_json::Number::as_f64)
                .unwrap_or(0.0)
                <= 0.0;
        let from = Timestamp::parse(&item.effective_start_date);
        let (true, Some(from)) = (plain, from.filter(|from| *from <= now)) else {
            return;
        };
        let Some((place, price)) = self.read(item) else {
            return;
        };
        let new = Held {
            from,
            price,
            meter: item.meter_name.clone(),
            is_ambiguous: false,
        };
        let Some(held) = self.held.get_mut(&place) else {
            if self.held.len() < MAX_HELD {
                self.held.insert(place, new);
            }
            return;
        };
        if held.from < from {
            *held = new;
        } else if held.from == from && held.price != price {
            held.is_ambiguous = true;
        }
    }

    fn read(&mut self, item: &Item) -> Option<(Place, Price)> {
        let price = Price::new(decimal(item.retail_price.as_ref()?)?);
        let region = item.arm_region_name.clone();
        if let Some(class) = ptu_class(item) {
            let place = Place {
                model: PTU,
                up_to: u64::MAX,
                class,
                sort: SortOfPrice::PtuHour,
                region,
            };
            return Some((place, price?));
        }
        let price = match item.unit_of_measure.as_str() {
            "1K" => price?.times(1000).and_then(Price::new)?,
            "1M" => price?,
            _ => return None,
        };
        let meter = Meter::read(&item.meter_name)?;
        let Some(row) = listed_meters().get(&meter.of) else {
            if self.unlisted.len() < MAX_UNLISTED {
                self.unlisted.insert(meter.of);
            }
            return None;
        };
        let place = Place {
            model: row.model,
            up_to: row.up_to_input,
            class: meter.class,
            sort: meter.sort,
            region,
        };
        Some((place, price))
    }

    /// The changes that are proposed: where a price in force at `now` is not the list's.
    pub fn proposals(&self, now: Timestamp) -> Vec<Proposal> {
        let mut regions: BTreeMap<Proposal, Vec<String>> = BTreeMap::new();
        for (place, held) in self.held.iter().filter(|(_, held)| !held.is_ambiguous) {
            let listed = listed(place, now);
            if listed == Some(held.price) {
                continue;
            }
            let proposal = Proposal {
                model: place.model.to_owned(),
                region_class: place.class,
                sort: place.sort,
                up_to_input: (place.up_to < u64::MAX).then_some(place.up_to),
                listed: listed.map(|price| price.amount().to_string()),
                retail: held.price.amount().to_string(),
                from: held.from.day(),
                meter: held.meter.clone(),
                regions: Vec::new(),
            };
            regions
                .entry(proposal)
                .or_default()
                .push(place.region.clone());
        }
        let with = regions.into_iter();
        with.map(|(proposal, regions)| Proposal {
            regions,
            ..proposal
        })
        .collect()
    }

    /// Names of meters, without class and sort, that the list has no model for.
    pub fn unlisted(&self) -> impl Iterator<Item = &str> {
        self.unlisted.iter().map(String::as_str)
    }

    /// How many prices were read, by model, class, region and sort.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

impl Meter {
    /// Reads a name. `None` where it does not say class and sort, each once.
    fn read(name: &str) -> Option<Self> {
        let (mut of, mut classes, mut sorts) = (Vec::new(), Vec::new(), Vec::new());
        let mut is_cached = false;
        let words = words(name);
        let mut words = words.iter().map(String::as_str).peekable();
        while let Some(word) = words.next() {
            match word {
                "data" if words.next_if_eq(&"zone").is_some() => {
                    classes.push(RegionClass::DataZone)
                }
                "gl" | "glbl" | "global" => classes.push(RegionClass::Global),
                "dz" | "dzone" | "datazone" => classes.push(RegionClass::DataZone),
                "regnl" | "regional" | "rgnl" => classes.push(RegionClass::Regional),
                "inp" | "input" | "inpt" => sorts.push(SortOfPrice::Input),
                "outp" | "output" | "outpt" | "opt" => sorts.push(SortOfPrice::Output),
                "cached" | "cchd" | "cd" => is_cached = true,
                "tokens" | "1m" => {}
                other => of.push(other),
            }
        }
        let ([class], of) = (&classes[..], of.join(" ")) else {
            return None;
        };
        let sort = match (&sorts[..], is_cached) {
            // Embeddings have only input, which their meters do not say.
            ([] | [SortOfPrice::Input], false) => SortOfPrice::Input,
            ([SortOfPrice::Input], true) => SortOfPrice::CachedInput,
            ([SortOfPrice::Output], false) => SortOfPrice::Output,
            _ => return None,
        };
        (!of.is_empty()).then_some(Self {
            of,
            class: *class,
            sort,
        })
    }
}

/// Lower case, without hyphens and what else stands between words.
fn words(name: &str) -> Vec<String> {
    let parts = name.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    let parts = parts.filter(|part| !part.is_empty());
    parts.map(str::to_ascii_lowercase).collect()
}

/// The rows of the list by what their meter's name leaves.
fn listed_meters() -> &'static BTreeMap<String, &'static PaygRow> {
    static METERS: LazyLock<BTreeMap<String, &'static PaygRow>> = LazyLock::new(|| {
        let rows = list::payg().iter();
        rows.filter_map(|row| Some((Meter::read(row.meter)?.of, row)))
            .collect()
    });
    &METERS
}

fn ptu_class(item: &Item) -> Option<RegionClass> {
    let is_hour = matches!(item.unit_of_measure.as_str(), "1/Hour" | "1 Hour");
    if !is_hour || item.product_name != "Azure OpenAI" {
        return None;
    }
    match item.meter_name.as_str() {
        "Provisioned Managed Global Unit" => Some(RegionClass::Global),
        "Provisioned Managed Data Zone Unit" => Some(RegionClass::DataZone),
        "Provisioned Managed Regional Unit" => Some(RegionClass::Regional),
        _ => None,
    }
}

/// The list's price in force.
fn listed(place: &Place, now: Timestamp) -> Option<Price> {
    if place.sort == SortOfPrice::PtuHour {
        return list::ptu_hour(place.class, &place.region, now);
    }
    let rows = list::rows(place.model, place.class, &place.region);
    let in_force = |row: &Row| row.from <= now && row.up_to == place.up_to;
    let tokens = rows.into_iter().find(in_force)?.tokens;
    match place.sort {
        SortOfPrice::Input => Some(tokens.input),
        SortOfPrice::CachedInput => tokens.cached_input,
        SortOfPrice::Output => Some(tokens.output),
        SortOfPrice::PtuHour => None,
    }
}

/// A JSON number's digits. It was a float on the way, whose shortest text has the digits that were
/// written.
fn decimal(number: &serde_json::Number) -> Option<rust_decimal::Decimal> {
    let text = number.to_string();
    rust_decimal::Decimal::from_str_exact(&text)
        .or_else(|_| rust_decimal::Decimal::from_scientific(&text))
        .ok()
}

#[cfg(test)]
mod tests;
