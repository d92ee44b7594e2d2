//! What each app owes: the sums of its calls, and its share of what PTUs cost.
//!
//! Pay-as-you-go is what its calls cost ([`super::price`]). A PTU costs the same each hour, used or
//! not: the hour's price is shared among the apps that used it in that hour by their weighted tokens,
//! together with what nobody used, up to what the PTU can do in an hour. That part is *idle* and has
//! a line of its own, or is borne by those who did use the PTU ([`Idle`]).
//!
//! A [`Reckoning`] takes a day at a time, so that what it holds is a day's hours and the lines of the
//! bill. Nothing in it is rounded: lines add up to the total, and the total does not depend on how it
//! is broken down.

mod line;
pub mod spill;
pub mod split;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::event::Kind;
use super::price::{PricedDeployment, Prices, PtuPrice};
use super::time::Timestamp;

pub use self::line::{Figures, Line, add_amount};

/// The app that idle cost is shown as. No app can have the name: names have no parentheses.
pub const IDLE: &str = "(idle)";

/// Milliseconds of an hour.
const HOUR_MS: u64 = 60 * 60 * 1000;

/// Hours of a day.
const HOURS: u8 = 24;

/// What a bill is broken down by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum By {
    /// Who pays.
    App,
    /// The model that was asked for.
    Model,
    /// The backend that answered.
    Backend,
    /// Pay-as-you-go or provisioned.
    Kind,
    /// The UTC day.
    Day,
    /// Who called by means of the app.
    User,
}

impl By {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::App,
        Self::Model,
        Self::Backend,
        Self::Kind,
        Self::Day,
        Self::User,
    ];

    /// The word used in commands, URLs and headings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Model => "model",
            Self::Backend => "backend",
            Self::Kind => "kind",
            Self::Day => "day",
            Self::User => "user",
        }
    }
}

impl FromStr for By {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|by| by.as_str() == text);
        found.ok_or_else(|| {
            let words = Self::ALL.map(Self::as_str).join(", ");
            format!("`{text}` is nothing to break a bill down by; it can be {words}")
        })
    }
}

/// Who bears what nobody used of a PTU.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Idle {
    /// Nobody: it has a line of its own.
    #[default]
    OwnLine,
    /// The apps that used the PTU in that hour. Hours that nobody used it in have a line of
    /// their own all the same.
    Users,
}

/// What some calls come to that have all of this in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Who pays.
    pub app: Arc<str>,
    /// Who called by means of it; empty where that is not asked for.
    pub user: Arc<str>,
    /// The UTC day.
    pub day: Arc<str>,
    /// The model that was asked for.
    pub model: Arc<str>,
    /// The backend that answered; empty when none did.
    pub backend: Arc<str>,
    /// Its kind, in a word; empty when none did.
    pub kind: Arc<str>,
    /// What they come to.
    pub figures: Figures,
}

/// What an app, or a user of it, used of a PTU in an hour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PtuUse {
    /// Who pays.
    pub app: Arc<str>,
    /// Who called by means of it; empty where that is not asked for.
    pub user: Arc<str>,
    /// The hour of the day, 0 to 23.
    pub hour: u8,
    /// The backend.
    pub backend: Arc<str>,
    /// The deployment's name on it.
    pub deployment: Arc<str>,
    /// The model that was asked for.
    pub model: Arc<str>,
    /// Weighted tokens.
    pub weighted: u64,
}

/// Why there is no bill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BillError {
    /// An amount or a count that can't be kept exactly any more.
    TooLarge,
    /// More lines than a bill may have: it is broken down too finely.
    TooManyLines,
}

impl fmt::Display for BillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => write!(f, "a sum is too large to be exact"),
            Self::TooManyLines => write!(
                f,
                "the bill would have more than {MAX_LINES} lines: break it down less finely, or take fewer days"
            ),
        }
    }
}

impl std::error::Error for BillError {}

/// Most lines of a bill. They are held in memory, some 500 bytes each.
pub const MAX_LINES: usize = 100_000;

/// What a bill is to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What it is broken down by, in this order; nothing: the total only.
    pub by: Vec<By>,
    /// Only this app's lines. Its shares are those that it has beside all others.
    pub app: Option<Arc<str>>,
    /// Who bears what nobody used.
    pub idle: Idle,
}

/// A bill.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    /// What its lines are broken down by.
    pub by: Vec<By>,
    /// The lines, in order of what they are for; idle cost has lines of its own among them.
    pub lines: Vec<Line>,
    /// What they come to together.
    pub total: Line,
}

/// A bill in the making.
#[derive(Debug)]
pub struct Reckoning<'a> {
    prices: &'a Prices,
    wanted: Wanted,
    lines: BTreeMap<Vec<Arc<str>>, Line>,
    /// The uses of the day in hand, by hour, backend and deployment.
    hours: BTreeMap<Slot, Vec<PtuUse>>,
}

/// An hour of a PTU.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Slot {
    hour: u8,
    backend: Arc<str>,
    deployment: Arc<str>,
}

impl<'a> Reckoning<'a> {
    /// A bill without anything on it yet.
    pub const fn new(prices: &'a Prices, wanted: Wanted) -> Self {
        Self {
            prices,
            wanted,
            lines: BTreeMap::new(),
            hours: BTreeMap::new(),
        }
    }

    /// Whether an app's calls are on the bill.
    pub fn is_for(&self, app: &str) -> bool {
        self.wanted.app.as_deref().is_none_or(|only| only == app)
    }

    /// Puts calls on the bill.
    ///
    /// # Errors
    /// [`BillError`].
    pub fn add(&mut self, used: &Use) -> Result<(), BillError> {
        if !self.is_for(&used.app) {
            return Ok(());
        }
        let key = self.key(|by| match by {
            By::App => &used.app,
            By::Model => &used.model,
            By::Backend => &used.backend,
            By::Kind => &used.kind,
            By::Day => &used.day,
            By::User => &used.user,
        });
        self.line(key)?.figures.add(&used.figures)
    }

    /// Notes what was used of a PTU on the day in hand; [`Self::close_day`] puts it on the bill. The
    /// use of apps that are not on the bill counts, too.
    pub fn add_ptu(&mut self, used: PtuUse) {
        let slot = Slot {
            hour: used.hour,
            backend: Arc::clone(&used.backend),
            deployment: Arc::clone(&used.deployment),
        };
        self.hours.entry(slot).or_default().push(used);
    }

    /// Shares out what the PTUs cost on `day`, which begins at `start`: each hour that has begun
    /// by `now` and that the deployment was there in. All of the day's use has to have been noted.
    ///
    /// # Errors
    /// [`BillError`].
    pub fn close_day(
        &mut self,
        day: &Arc<str>,
        start: Timestamp,
        now: Timestamp,
    ) -> Result<(), BillError> {
        let mut used = std::mem::take(&mut self.hours);
        let prices = self.prices;
        for of in prices.ptus() {
            for hour in 0..HOURS {
                let at = start.plus_ms(u64::from(hour) * HOUR_MS);
                let slot = Slot {
                    hour,
                    backend: Arc::clone(&of.backend),
                    deployment: Arc::clone(&of.name),
                };
                let uses = used.remove(&slot).unwrap_or_default();
                let costs = at < now && of.is_there(at);
                let price = prices.ptu(&of.backend, &of.name, at).filter(|_| costs);
                self.close_hour(day, Some(of), price.as_ref(), uses)?;
            }
        }
        // Of deployments that the configuration does not have any more.
        for uses in used.into_values() {
            self.close_hour(day, None, None, uses)?;
        }
        Ok(())
    }

    /// Shares out an hour: first among the apps, then each app's share among what it used it for, so
    /// that an app's share is the same however finely it is broken down.
    fn close_hour(
        &mut self,
        day: &Arc<str>,
        of: Option<&PricedDeployment>,
        price: Option<&PtuPrice>,
        uses: Vec<PtuUse>,
    ) -> Result<(), BillError> {
        let mut apps: BTreeMap<Arc<str>, Vec<PtuUse>> = BTreeMap::new();
        for used in uses {
            apps.entry(Arc::clone(&used.app)).or_default().push(used);
        }
        let weights: Option<Vec<u64>> = apps.values().map(|uses| weight(uses)).collect();
        let weights = weights.ok_or(BillError::TooLarge)?;
        let (per_hour, capacity) = match price {
            Some(price) => (price.per_hour, price.capacity),
            None => (None, 0),
        };
        let Some(per_hour) = per_hour else {
            for (app, uses) in &apps {
                self.put_shares(day, app, uses, None)?;
            }
            return Ok(());
        };
        let mut shares = self.shares(per_hour, capacity, weights)?;
        let idle = shares.pop().unwrap_or_default();
        if let Some(of) = of {
            self.put_idle(day, of, idle)?;
        }
        for ((app, uses), share) in apps.iter().zip(shares) {
            self.put_shares(day, app, uses, Some(share))?;
        }
        Ok(())
    }

    /// The apps' shares of an hour's price, and after them what is idle.
    fn shares(
        &self,
        per_hour: Decimal,
        capacity: u64,
        mut weights: Vec<u64>,
    ) -> Result<Vec<Decimal>, BillError> {
        let used = weights.iter().try_fold(0u64, |sum, w| sum.checked_add(*w));
        let used = used.ok_or(BillError::TooLarge)?;
        let idle = match self.wanted.idle {
            _ if used == 0 => 1,
            Idle::OwnLine => capacity.saturating_sub(used),
            Idle::Users => 0,
        };
        weights.push(idle);
        split::split(per_hour, &weights).ok_or(BillError::TooLarge)
    }

    /// Puts an app's share of an hour on the bill; `None`: it has no price.
    fn put_shares(
        &mut self,
        day: &Arc<str>,
        app: &Arc<str>,
        uses: &[PtuUse],
        share: Option<Decimal>,
    ) -> Result<(), BillError> {
        if !self.is_for(app) {
            return Ok(());
        }
        let weights: Vec<u64> = uses.iter().map(|used| used.weighted).collect();
        let shares = match share {
            // An app that used nothing, although it called, has a share of nothing.
            Some(share) if share.is_zero() => vec![Decimal::ZERO; uses.len()],
            Some(share) => split::split(share, &weights).ok_or(BillError::TooLarge)?,
            None => vec![Decimal::ZERO; uses.len()],
        };
        for (used, cost) in uses.iter().zip(shares) {
            let kind: Arc<str> = Kind::Ptu.as_str().into();
            let key = self.key(|by| match by {
                By::App => &used.app,
                By::Model => &used.model,
                By::Backend => &used.backend,
                By::Kind => &kind,
                By::Day => day,
                By::User => &used.user,
            });
            let line = self.line(key)?;
            line.add_ptu(used.weighted, cost, share.is_none())?;
        }
        Ok(())
    }

    fn put_idle(
        &mut self,
        day: &Arc<str>,
        of: &PricedDeployment,
        cost: Decimal,
    ) -> Result<(), BillError> {
        if cost.is_zero() || self.wanted.app.is_some() {
            return Ok(());
        }
        let (app, nobody, kind): (Arc<str>, Arc<str>, Arc<str>) =
            (IDLE.into(), "".into(), Kind::Ptu.as_str().into());
        let mut key = self.key(|by| match by {
            By::App => &app,
            By::Model => &of.model,
            By::Backend => &of.backend,
            By::Kind => &kind,
            By::Day => day,
            By::User => &nobody,
        });
        // A line of its own, also where the bill is not broken down by app.
        key.push(app);
        let line = self.line(key)?;
        line.is_idle = true;
        line.add_ptu(0, cost, false)
    }

    fn key<'v>(&self, value: impl Fn(By) -> &'v Arc<str>) -> Vec<Arc<str>> {
        self.wanted
            .by
            .iter()
            .map(|by| Arc::clone(value(*by)))
            .collect()
    }

    fn line(&mut self, key: Vec<Arc<str>>) -> Result<&mut Line, BillError> {
        if self.lines.len() >= MAX_LINES && !self.lines.contains_key(&key) {
            return Err(BillError::TooManyLines);
        }
        Ok(self.lines.entry(key).or_default())
    }

    /// The bill.
    ///
    /// # Errors
    /// [`BillError`].
    pub fn finish(self) -> Result<Bill, BillError> {
        let mut bill = Bill {
            by: self.wanted.by,
            ..Bill::default()
        };
        for (mut of, mut line) in self.lines {
            of.truncate(bill.by.len());
            line.of = of;
            bill.total.add(&line)?;
            bill.lines.push(line);
        }
        Ok(bill)
    }
}

fn weight(uses: &[PtuUse]) -> Option<u64> {
    uses.iter()
        .try_fold(0u64, |sum, used| sum.checked_add(used.weighted))
}
