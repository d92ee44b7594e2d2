//! What each day costs, by app. A day is summed up from each app's sums, which takes a read an app. So
//! what a day came to that is over is written down, and read as one row from then on.
//!
//! In memory days are good for a while too: those that are over for an hour, the last two for a minute.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::billing::{self, BillingError, Period, Span};
use crate::config::Config;
use crate::gateway::bill::{BillError, By, Idle, Line, Wanted, add_amount};
use crate::gateway::price::Prices;
use crate::gateway::time::{DAY_MS, Timestamp};
use crate::store::console::days::{self, DayRow};
use crate::store::{Store, StoreError};

/// How long what was read of a day is good, ms: of one that is over, and of the last two.
const GOOD_MS: (u64, u64) = (60 * 60_000, 60_000);

/// Most days that are kept in memory: two months' and some.
const MOST_DAYS: usize = 64;

/// Days that are read at the same time.
const CONCURRENT: usize = 8;

/// For how many days after its end a day is summed up again, once a day: hubs keep events for seven, so
/// that none comes later.
const LATE_MS: u64 = 10 * DAY_MS;

/// How many days back are summed up before anybody looks: this month's and the last one's.
const BACK: u64 = 62;

/// How often is looked for days to sum up, and how long after the start at first.
pub(super) const KEEP: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(60));

/// What an app's calls come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spent {
    /// Calls.
    #[serde(rename = "n")]
    pub(super) calls: u64,
    /// Prompt and generated tokens.
    #[serde(rename = "t")]
    pub(super) tokens: u64,
    /// What pay-as-you-go cost.
    #[serde(rename = "c")]
    pub(super) payg_cost: Decimal,
    /// The part of that of spilled calls.
    #[serde(rename = "s")]
    pub(super) spilled_cost: Decimal,
    /// Its share of what PTUs cost.
    #[serde(rename = "p")]
    pub(super) ptu_cost: Decimal,
    /// Weighted tokens at PTUs.
    #[serde(rename = "w")]
    pub(super) weighted: u64,
    /// Tokens of answers that the cache gave.
    #[serde(rename = "vt", default)]
    pub(super) saved_tokens: u64,
    /// What these would have cost.
    #[serde(rename = "vc", default)]
    pub(super) saved_cost: Decimal,
}

impl Spent {
    fn of(line: &Line) -> Self {
        let figures = &line.figures;
        Self {
            calls: figures.calls,
            tokens: figures.tokens.total(),
            payg_cost: figures.cost,
            spilled_cost: figures.spilled_cost,
            ptu_cost: line.ptu_cost,
            weighted: line.weighted,
            saved_tokens: figures.saved_tokens,
            saved_cost: figures.saved_cost,
        }
    }

    /// Adds these, exactly.
    ///
    /// # Errors
    /// [`BillError::TooLarge`].
    pub(super) fn add(&mut self, other: &Self) -> Result<(), BillError> {
        for (sum, count) in [
            (&mut self.calls, other.calls),
            (&mut self.tokens, other.tokens),
            (&mut self.weighted, other.weighted),
            (&mut self.saved_tokens, other.saved_tokens),
        ] {
            *sum = sum.checked_add(count).ok_or(BillError::TooLarge)?;
        }
        add_amount(&mut self.payg_cost, other.payg_cost)?;
        add_amount(&mut self.spilled_cost, other.spilled_cost)?;
        add_amount(&mut self.saved_cost, other.saved_cost)?;
        add_amount(&mut self.ptu_cost, other.ptu_cost)
    }

    /// All that it comes to.
    ///
    /// # Errors
    /// [`BillError::TooLarge`].
    pub(super) fn cost(&self) -> Result<Decimal, BillError> {
        let mut cost = self.payg_cost;
        add_amount(&mut cost, self.ptu_cost)?;
        Ok(cost)
    }
}

/// What a day comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Day {
    /// By app.
    #[serde(rename = "a")]
    pub(super) apps: Vec<(Arc<str>, Spent)>,
    /// What nobody used of PTUs.
    #[serde(rename = "i")]
    pub(super) idle: Decimal,
    /// Calls without a price, by model; at least one where a PTU that it used has none.
    #[serde(rename = "u")]
    pub(super) unpriced: Vec<(Arc<str>, u64)>,
}

impl Day {
    fn of(lines: &[Line]) -> Result<Self, BillError> {
        let mut day = Self::default();
        let mut apps: BTreeMap<Arc<str>, Spent> = BTreeMap::new();
        for line in lines {
            let [app, model] = &line.of[..] else { continue };
            let unpriced = line.figures.unpriced_calls;
            let unpriced = unpriced.max(u64::from(line.unpriced_weighted > 0));
            if unpriced > 0 {
                day.unpriced.push((Arc::clone(model), unpriced));
            }
            if line.is_idle {
                add_amount(&mut day.idle, line.ptu_cost)?;
            } else {
                let sum = apps.entry(Arc::clone(app)).or_default();
                sum.add(&Spent::of(line))?;
            }
        }
        day.apps = apps.into_iter().collect();
        Ok(day)
    }
}

/// A day that is being read: when it begins, what it comes to, and whether that is new.
type Reading<'a> =
    Pin<Box<dyn Future<Output = Result<(Timestamp, Arc<Day>, bool), BillingError>> + Send + 'a>>;

/// The days, and by what they are summed up.
#[derive(Debug)]
pub(super) struct Days {
    pub(super) prices: Prices,
    idle: Idle,
    kept: tokio::sync::Mutex<BTreeMap<String, (Timestamp, Arc<Day>)>>,
}

impl Days {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            prices: config.prices(),
            idle: config.chargeback.idle,
            kept: tokio::sync::Mutex::default(),
        }
    }

    /// What the days come to that begin at `starts`.
    ///
    /// # Errors
    /// [`BillingError`].
    pub(super) async fn read(
        &self,
        store: &dyn Store,
        starts: Vec<Timestamp>,
        now: Timestamp,
    ) -> Result<Vec<Arc<Day>>, BillingError> {
        // Held while days are read: whoever looks at the same time needs the same.
        let mut kept = self.kept.lock().await;
        let known = |start: Timestamp| {
            let (read, day) = kept.get(&start.day())?;
            let good_ms = if is_over(start, now) {
                GOOD_MS.0
            } else {
                GOOD_MS.1
            };
            (now.ms_since(*read) < good_ms).then(|| Arc::clone(day))
        };
        let reads: Vec<Reading<'_>> = starts
            .into_iter()
            .map(|start| -> Reading<'_> {
                let known = known(start);
                Box::pin(async move {
                    Ok(match known {
                        Some(day) => (start, day, false),
                        None => (start, Arc::new(self.day(store, start, now).await?), true),
                    })
                })
            })
            .collect();
        let days: Vec<_> = stream::iter(reads)
            .buffered(CONCURRENT)
            .try_collect()
            .await?;
        for (start, day, _) in days.iter().filter(|(_, _, is_new)| *is_new) {
            kept.insert(start.day(), (now, Arc::clone(day)));
        }
        while kept.len() > MOST_DAYS {
            let oldest = kept.iter().min_by_key(|(_, (read, _))| *read);
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else {
                break;
            };
            kept.remove(&oldest);
        }
        Ok(days.into_iter().map(|(_, day, _)| day).collect())
    }

    /// A day as it was written down, or summed up.
    async fn day(
        &self,
        store: &dyn Store,
        start: Timestamp,
        now: Timestamp,
    ) -> Result<Day, BillingError> {
        if !is_over(start, now) {
            return self.sum_up(store, start, now).await;
        }
        match self.written(store, start, now).await? {
            Some(day) => Ok(day),
            None => self.write_down(store, start, now).await,
        }
    }

    /// A day that was written down, by the same prices and lately enough.
    async fn written(
        &self,
        store: &dyn Store,
        start: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Day>, StoreError> {
        let Some(row) = days::read(store, &start.day()).await? else {
            return Ok(None);
        };
        let is_last = row.made >= start.plus_ms(DAY_MS + LATE_MS);
        let is_good = is_last || now.ms_since(row.made) < DAY_MS;
        if !is_good || row.terms != self.terms(start) {
            return Ok(None);
        }
        // What another version wrote is summed up again.
        Ok(serde_json::from_str(&row.text).ok())
    }

    /// Sums a day up and writes it down.
    async fn write_down(
        &self,
        store: &dyn Store,
        start: Timestamp,
        now: Timestamp,
    ) -> Result<Day, BillingError> {
        let day = self.sum_up(store, start, now).await?;
        let row = DayRow {
            made: now,
            terms: self.terms(start),
            text: serde_json::to_string(&day).unwrap_or_default(),
        };
        if let Err(error) = days::write(store, &start.day(), &row).await {
            tracing::warn!(day = start.day(), %error, "what a day costs can't be written down");
        }
        Ok(day)
    }

    async fn sum_up(
        &self,
        store: &dyn Store,
        start: Timestamp,
        now: Timestamp,
    ) -> Result<Day, BillingError> {
        let name = start.day();
        let span = Span {
            from: Some(&name),
            to: Some(&name),
            month: None,
        };
        let period = Period::read(span, now).map_err(BillingError::Asked)?;
        let wanted = Wanted {
            by: vec![By::App, By::Model],
            app: None,
            idle: self.idle,
        };
        let bill = billing::make(store, &self.prices, period, wanted, now).await?;
        Ok(Day::of(&bill.lines)?)
    }

    /// All that a day's sums depend on beside its calls: what PTUs cost and can do, which goes by the list of
    /// models of this release too, and who bears what is idle.
    fn terms(&self, start: Timestamp) -> String {
        let mut terms = format!("{:?}", self.idle);
        for of in self.prices.ptus() {
            // Prices change at midnight.
            let price = self.prices.ptu(&of.backend, &of.name, start);
            let per_hour = price.as_ref().and_then(|price| price.per_hour);
            let capacity = price.as_ref().map_or(0, |price| price.capacity);
            let since = of.since.unix_ms();
            // Writing to a String can't fail.
            let ptus = of.ptus_at(start);
            let _ = write!(terms, ";{}/{} {ptus}", of.backend, of.name);
            let _ = write!(terms, " {per_hour:?} {capacity} {since}");
            if let Some(deleted) = of.deleted {
                let _ = write!(terms, " {}", deleted.unix_ms());
            }
        }
        terms
    }

    /// Writes days down that are over, before anybody looks at them.
    pub(super) async fn keep(&self, store: &dyn Store, now: Timestamp) {
        if let Err(error) = self.keep_at(store, now).await {
            tracing::warn!(%error, "what past days cost can't be summed up");
        }
    }

    async fn keep_at(&self, store: &dyn Store, now: Timestamp) -> Result<(), BillingError> {
        let today = now.unix_ms() - now.unix_ms() % DAY_MS;
        for ago in 2..=BACK {
            let start = Timestamp::from_unix_ms(today.saturating_sub(ago * DAY_MS));
            if self.written(store, start, now).await?.is_none() {
                self.write_down(store, start, now).await?;
            }
        }
        Ok(())
    }
}

/// Whether a day is over for long enough that hardly anything of it is still to come.
const fn is_over(start: Timestamp, now: Timestamp) -> bool {
    now.ms_since(start) >= 2 * DAY_MS
}

#[cfg(test)]
mod tests;
