//! When provisioned throughput was idle, by hour of the week. From the hours that the console keeps, of the
//! last four weeks.

use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::Serialize;

use super::Console;
use super::now::percent;
use super::plan::Past;
use crate::gateway::price::{PricedDeployment, Prices};
use crate::gateway::ptu::ModelRate;
use crate::gateway::time::DAY_MS;
use crate::gateway::what_if::{Hour, PtuHour, WEEK_HOURS, WeekHour, add_idle, week_hours};
use crate::store::StoreError;

/// When provisioned throughput is idle.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct IdleWeek {
    /// The currency of all amounts.
    pub(super) currency: String,
    /// Hours that it is of.
    pub(super) hours: usize,
    /// The hours of a week in UTC, Monday's first: 168, or none where no PTU's capacity is known.
    pub(super) week: Vec<IdleHour>,
    /// What idle PTUs cost in an average week of those that were recorded, less the hours of the week of which
    /// nothing was.
    pub(super) cost_per_week: String,
}

/// An hour of the week.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct IdleHour {
    /// Percent of all PTUs that nobody used in it; `null` where nothing was recorded.
    pub(super) idle_percent: Option<f64>,
    /// What that cost in an average week, by the sizes and prices that PTUs had then.
    pub(super) cost: String,
}

/// Looks when PTUs were idle: those that were deleted too, in the hours in which they were there.
///
/// # Errors
/// When the store fails.
pub(super) async fn idle(console: &Console) -> Result<IdleWeek, StoreError> {
    let past = Past::read(console).await?;
    let prices = console.accounts.prices();
    let mut week = [WeekHour::default(); WEEK_HOURS];
    let recorded = week_hours(&past.hours);
    for of in prices.ptus() {
        let rate = ModelRate::of(&of.base_model).unwrap_or(ModelRate::ASSUMED);
        let is_it = |backend: &str, name: &str| *backend == *of.backend && *name == *of.name;
        let hours = past.hours(|backend, name, _| is_it(backend, name), &rate);
        add_idle(&mut week, &there(prices, of, &hours), &recorded);
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

/// The hours in which a deployment was there and its size is known, by the size and the price that it had in each.
fn there(prices: &Prices, of: &PricedDeployment, hours: &[Hour]) -> Vec<PtuHour> {
    let day = |hour: &Hour| hour.start.unix_ms() / DAY_MS;
    let mut there = Vec::with_capacity(hours.len());
    // A PTU comes and goes, and changes its size and its price, at midnight.
    for hours in hours.chunk_by(|a, b| day(a) == day(b)) {
        let first = hours.first().filter(|first| of.is_there(first.start));
        let known = first.and_then(|first| prices.ptu(&of.backend, &of.name, first.start));
        let Some(known) = known.filter(|known| known.capacity > 0) else {
            continue;
        };
        there.extend(hours.iter().map(|hour| PtuHour {
            start: hour.start,
            demand: hour.demand,
            capacity: known.capacity,
            cost: known.per_hour,
        }));
    }
    there
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::gateway::time::Timestamp;
    use crate::store::console::HOUR_MS;

    /// 2026-11-01T00:00:00Z; 28 days from it end with the 28th.
    const FIRST: Timestamp = Timestamp::from_unix_ms(1_793_491_200_000);

    /// What idle hours cost in an average week, of 28 days in which nobody used a PTU deployment of 50 units
    /// of gpt-4o at 1.00 an hour; and the hours that count.
    fn idle(more: &str) -> (Decimal, usize) {
        let text = format!(
            "[auth]\nmode = \"off\"\n[[backend]]\nname = \"b\"\nendpoint = \"http://127.0.0.1:9\"\n\
             [[backend.deployment]]\nname = \"gpt-4o\"\nkind = \"ptu\"\n{more}"
        );
        let config = Config::parse(&text, "test", &|_| None);
        let prices = config.unwrap_or_else(|e| panic!("{e}")).prices();
        let hours: Vec<Hour> = (0..28 * 24)
            .map(|number| Hour {
                start: FIRST.plus_ms(number * HOUR_MS),
                demand: 0,
                low: 0,
            })
            .collect();
        let there = there(&prices, prices.ptus()[0], &hours);
        let mut week = [WeekHour::default(); WEEK_HOURS];
        add_idle(&mut week, &there, &[4; WEEK_HOURS]);
        (week.iter().map(|hour| hour.cost).sum(), there.len())
    }

    #[test]
    fn a_ptu_is_idle_only_while_it_is_there() {
        let week = Decimal::from(50 * 168);
        assert_eq!(idle("ptus = 50\n"), (week, 672));
        let (young, hours) = idle("ptus = 50\nsince = \"2026-11-27\"\n");
        assert_eq!((young, hours), (Decimal::from(50 * 48 / 4), 48));
        let other = "[[backend.deployment]]\nname = \"gpt-4o-payg\"\nkind = \"payg\"\n";
        let (gone, hours) = idle(&format!("ptus = 50\ndeleted = \"2026-11-08\"\n{other}"));
        assert_eq!((gone, hours), (week / Decimal::from(4), 168));
        assert_eq!(idle(""), (Decimal::ZERO, 0), "its size is not known");
    }

    #[test]
    fn a_ptu_is_idle_by_the_size_and_the_price_that_it_had() {
        let (grown, _) = idle("ptus = 50\nbefore = [{ until = \"2026-11-22\", ptus = 30 }]\n");
        // Three weeks of 30, one of 50.
        assert_eq!(grown, Decimal::from(35 * 168));
        let price = "[[price]]\nptu_hour = \"0.50\"\nfrom = \"2026-11-15\"\n";
        let (cheaper, _) = idle(&format!("ptus = 50\n{price}"));
        assert_eq!(cheaper, Decimal::new(375, 1) * Decimal::from(168));
    }
}
