//! Azure's list prices, as they come with the program: `payg.csv` and `ptu.csv`, whose heads say
//! where they are from and of when. What no row names has no price: an amount is never guessed from
//! another model, class or time.

use std::cmp::Reverse;
use std::sync::LazyLock;

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::rate::{Price, TokenPrices};
use super::{RegionClass, Row};
use crate::gateway::ptu::is_or_extends;
use crate::gateway::service_tier::ServiceTier;
use crate::gateway::time::Timestamp;

/// The currency of the list.
pub const CURRENCY: &str = "USD";

const PAYG: &str = include_str!("payg.csv");
const PTU: &str = include_str!("ptu.csv");

const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");

/// A row of `payg.csv`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaygRow {
    /// The model by Azure's name.
    pub model: &'static str,
    /// Where its calls may be processed.
    pub region_class: RegionClass,
    /// The regions with this price; empty: all that no other row names.
    pub regions: Vec<&'static str>,
    /// Since when.
    pub from: Timestamp,
    /// Only for calls with at most so many prompt tokens.
    pub up_to_input: u64,
    /// The prices.
    pub tokens: TokenPrices,
    /// Azure's name of the meter of the input price.
    pub meter: &'static str,
}

/// A row of `ptu.csv`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PtuRow {
    /// Where the deployment's calls may be processed.
    pub region_class: RegionClass,
    /// The regions with this price; empty: all that no other row names.
    pub regions: Vec<&'static str>,
    /// Since when.
    pub from: Timestamp,
    /// The price of one PTU an hour.
    pub per_hour: Price,
}

/// The rows of `payg.csv`. That each line is one is held by a test.
pub fn payg() -> &'static [PaygRow] {
    static ROWS: LazyLock<Vec<PaygRow>> =
        LazyLock::new(|| lines(PAYG).filter_map(payg_row).collect());
    &ROWS
}

/// The rows of `ptu.csv`.
pub fn ptu() -> &'static [PtuRow] {
    static ROWS: LazyLock<Vec<PtuRow>> = LazyLock::new(|| lines(PTU).filter_map(ptu_row).collect());
    &ROWS
}

/// The prices of a model, a name with or without a version: those of the longest name in the list
/// that it is or extends. The region's own before the others', later ones before earlier ones, those
/// of short calls before those of any.
pub(super) fn rows(model: &str, class: RegionClass, region: &str) -> Vec<Row> {
    let named = payg().iter().filter(|row| is_or_extends(model, row.model));
    let Some(name) = named.map(|row| row.model).max_by_key(|name| name.len()) else {
        return Vec::new();
    };
    let of_class = payg()
        .iter()
        .filter(|row| row.model == name && row.region_class == class);
    let mut rows: Vec<&PaygRow> = of_class
        .filter(|row| row.regions.is_empty() || row.regions.contains(&region))
        .collect();
    rows.sort_by_key(|row| (row.regions.is_empty(), Reverse(row.from), row.up_to_input));
    let rows = rows.into_iter().map(|row| Row {
        from: row.from,
        up_to: row.up_to_input,
        tier: ServiceTier::Standard,
        tokens: row.tokens,
    });
    rows.collect()
}

/// What an hour of one PTU costs.
pub(super) fn ptu_hour(class: RegionClass, region: &str, at: Timestamp) -> Option<Price> {
    let rows = ptu().iter().filter(|row| {
        row.region_class == class
            && row.from <= at
            && (row.regions.is_empty() || row.regions.contains(&region))
    });
    let best = rows.max_by_key(|row| (!row.regions.is_empty(), row.from));
    best.map(|row| row.per_hour)
}

/// The first moment of a day such as `2026-11-01`.
pub fn day(text: &str) -> Option<Timestamp> {
    let date = time::Date::parse(text, DAY).ok()?;
    let seconds = date.midnight().assume_utc().unix_timestamp();
    let ms = u64::try_from(seconds).ok()?.checked_mul(1000)?;
    Some(Timestamp::from_unix_ms(ms))
}

/// The lines of a table below its head.
pub(super) fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.skip(1)
}

fn payg_row(line: &'static str) -> Option<PaygRow> {
    let mut cells = line.split(',');
    let mut cell = || cells.next();
    let row = PaygRow {
        model: cell()?,
        region_class: RegionClass::parse(cell()?)?,
        regions: regions(cell()?),
        from: day(cell()?)?,
        up_to_input: match cell()? {
            "" => u64::MAX,
            limit => limit.parse().ok()?,
        },
        tokens: TokenPrices {
            input: Price::parse(cell()?)?,
            cached_input: optional(cell()?)?,
            output: Price::parse(cell()?)?,
            reasoning: None,
            audio_input: optional(cell()?)?,
            audio_output: optional(cell()?)?,
            image_input: optional(cell()?)?,
            cached_audio_input: None,
            cached_image_input: None,
        },
        meter: cell()?,
    };
    Some(row)
}

fn ptu_row(line: &'static str) -> Option<PtuRow> {
    let mut cells = line.split(',');
    let row = PtuRow {
        region_class: RegionClass::parse(cells.next()?)?,
        regions: regions(cells.next()?),
        from: day(cells.next()?)?,
        per_hour: Price::parse(cells.next()?)?,
    };
    Some(row)
}

fn regions(cell: &'static str) -> Vec<&'static str> {
    match cell {
        "*" => Vec::new(),
        names => names.split(' ').collect(),
    }
}

/// The price in a cell that may be empty; `None` where it is neither.
fn optional(cell: &str) -> Option<Option<Price>> {
    match cell {
        "" => Some(None),
        price => Price::parse(price).map(Some),
    }
}
