//! Bills, from what is kept: reading it, breaking it down, writing it out.
//!
//! A bill is made from the sums of each app's day, so that what it takes depends on apps and days, not
//! on calls; only a bill by user, what spilling cost and an export of the calls read each of them. All
//! of it goes page by page: what is held is a day's hours, and the lines.

pub mod command;
pub mod csv;
pub mod export;
pub mod names;
pub mod period;
pub mod price_check;
pub mod reconcile;
pub mod render;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};

pub use self::names::Names;
pub use self::period::{Period, Span};
use crate::config::Config;
use crate::gateway::bill::spill::{SpillLine, Spills};
use crate::gateway::bill::{Bill, BillError, By, Idle, Reckoning, Wanted};
use crate::gateway::price::Prices;
use crate::gateway::price::list::CURRENCY;
use crate::gateway::reconcile::Reconciled;
use crate::gateway::time::Timestamp;
use crate::store::bill::{self, AppDay};
use crate::store::{Answer, Store, StoreError, bounds};

/// Apps whose day is read at the same time: on Azure each is a round trip.
const CONCURRENT: usize = 16;

/// Why there is no bill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BillingError {
    /// What was asked for is nothing that a bill can be of.
    Asked(String),
    /// The bill can't be kept exactly, or has too many lines.
    Bill(BillError),
    /// The store could not be read.
    Store(StoreError),
}

impl fmt::Display for BillingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked(why) => f.write_str(why),
            Self::Bill(error) => error.fmt(f),
            Self::Store(error) => write!(f, "the store can't be read: {error}"),
        }
    }
}

impl std::error::Error for BillingError {}

impl From<BillError> for BillingError {
    fn from(error: BillError) -> Self {
        Self::Bill(error)
    }
}

impl From<StoreError> for BillingError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// All that bills are made from.
#[derive(Clone, Debug)]
pub struct Billing {
    /// Where calls and their sums are kept.
    pub store: Arc<dyn Store>,
    /// What PTUs cost; calls were priced when they were recorded.
    pub prices: Arc<Prices>,
    /// The currency of all amounts.
    pub currency: Arc<str>,
    /// Who bears what nobody used of a PTU.
    pub idle: Idle,
    /// Whether display names of apps are asked for, and so may be kept.
    pub has_names: bool,
}

impl Billing {
    /// Bills by the prices of a configuration.
    pub fn new(config: &Config, store: Arc<dyn Store>) -> Self {
        Self {
            store,
            prices: Arc::new(config.prices()),
            currency: config.chargeback.currency.as_str().into(),
            idle: config.chargeback.idle,
            has_names: config.chargeback.graph_names,
        }
    }

    /// Bills where no PTU costs anything, in the currency of the list.
    pub fn without_ptus(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            prices: Arc::default(),
            currency: CURRENCY.into(),
            idle: Idle::default(),
            has_names: false,
        }
    }

    /// The bill of a period, or one app's part of it.
    ///
    /// # Errors
    /// [`BillingError`].
    pub async fn bill(
        &self,
        period: Period,
        by: Vec<By>,
        app: Option<Arc<str>>,
        now: Timestamp,
    ) -> Result<Bill, BillingError> {
        let wanted = Wanted {
            by,
            app,
            idle: self.idle,
        };
        make(self.store.as_ref(), &self.prices, period, wanted, now).await
    }

    /// The display names of apps that are known by an id only.
    pub async fn names(&self) -> Names {
        if self.has_names {
            Names::read(self.store.as_ref()).await
        } else {
            Names::default()
        }
    }

    /// What was found of the days of a period beside Azure's count, which is of all apps together: `None`
    /// for one app's bill.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn reconciled(
        &self,
        period: Period,
        app: Option<&str>,
    ) -> Result<Option<Vec<Reconciled>>, BillingError> {
        if app.is_some() {
            return Ok(None);
        }
        Ok(Some(reconcile::read(self.store.as_ref(), period).await?))
    }

    /// What spilling cost in a period, and who had filled the PTUs. Reads each call.
    ///
    /// # Errors
    /// [`BillingError`].
    pub async fn spilled(&self, period: Period) -> Result<Vec<SpillLine>, BillingError> {
        spilled(self.store.as_ref(), period).await
    }
}

/// The bill of a period. PTUs cost what they do up to `now`. By user it reads each call of the apps that are
/// on the bill.
///
/// # Errors
/// [`BillingError`].
pub async fn make(
    store: &dyn Store,
    prices: &Prices,
    period: Period,
    wanted: Wanted,
    now: Timestamp,
) -> Result<Bill, BillingError> {
    let apps = apps(store, period).await?;
    let by_user = wanted.by.contains(&By::User);
    let mut reckoning = Reckoning::new(prices, wanted);
    for start in period.days() {
        // A long period of few calls holds nobody else up.
        tokio::task::yield_now().await;
        let day: Arc<str> = start.day().into();
        // What others than the one app used weighs the same by their sums.
        let days: Vec<Answer<'_, AppDay>> = apps
            .iter()
            .map(|app| read(store, app, &day, by_user && reckoning.is_for(app)))
            .collect();
        let mut days = stream::iter(days).buffered(CONCURRENT);
        while let Some(sums) = days.try_next().await? {
            for used in &sums.uses {
                reckoning.add(used)?;
            }
            for used in sums.ptu_uses {
                reckoning.add_ptu(used);
            }
        }
        reckoning.close_day(&day, start, now)?;
    }
    Ok(reckoning.finish()?)
}

fn read<'a>(
    store: &'a dyn Store,
    app: &'a Arc<str>,
    day: &'a Arc<str>,
    by_user: bool,
) -> Answer<'a, AppDay> {
    if by_user {
        Box::pin(bill::by_user(store, app, day))
    } else {
        Box::pin(bill::sums(store, app, day))
    }
}

async fn spilled(store: &dyn Store, period: Period) -> Result<Vec<SpillLine>, BillingError> {
    let apps = apps(store, period).await?;
    let mut spills = Spills::default();
    for start in period.days() {
        let day = start.day();
        for app in &apps {
            let mut after = None;
            loop {
                let page = bill::calls(store, app, &day, after, bounds::MAX_PAGE).await?;
                for row in &page.rows {
                    if let Some(call) = bill::spill(row, app)? {
                        spills.add(&call)?;
                    }
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        spills.close_day()?;
    }
    Ok(spills.finish())
}

/// The apps with calls in any month of a period, in order of their names.
///
/// # Errors
/// When the store fails.
pub async fn apps(store: &dyn Store, period: Period) -> Result<Vec<Arc<str>>, StoreError> {
    let mut apps = BTreeSet::new();
    for month in period.months() {
        apps.extend(bill::apps(store, &month.to_string()).await?);
    }
    Ok(apps.into_iter().collect())
}
