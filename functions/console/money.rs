//! What a month costs, by app: the bill, a day at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Console;
use super::days::{Day, Days, Spent};
use super::now::percent;
use super::reconciliation::DriftDay;
use crate::billing::{BillingError, Names, Period, Span, csv, reconcile};
use crate::config::Config;
use crate::gateway::bill::{BillError, add_amount};
use crate::gateway::budget::{Budget, Month};
use crate::gateway::price::Prices;
use crate::gateway::time::Timestamp;

/// Months that can be chosen.
const MONTHS: usize = 6;

/// What is asked for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// The month, such as `2026-11`; absent or empty: this one.
    #[serde(default)]
    #[schemars(regex(pattern = r"^$|^20[0-9]{2}-(0[1-9]|1[0-2])$"))]
    pub(super) month: String,
}

impl Wish {
    /// The month that is meant.
    ///
    /// # Errors
    /// What is wrong with it.
    fn month(&self, now: Timestamp) -> Result<Month, BillingError> {
        if self.month.is_empty() {
            return Ok(Month::of(now));
        }
        self.month.parse().map_err(BillingError::Asked)
    }
}

/// What it takes to make bills.
#[derive(Debug)]
pub(super) struct Accounts {
    pub(super) days: Days,
    pub(super) currency: String,
    drift_percent: u32,
    budgets: BTreeMap<Arc<str>, Budget>,
}

/// A month.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Money {
    /// The month, such as `2026-11`.
    pub(super) month: String,
    /// The currency of all amounts. Amounts are exact decimal numbers, as text.
    pub(super) currency: String,
    /// When it was read, RFC 3339.
    pub(super) as_of: String,
    /// The months that there are, newest first.
    pub(super) months: Vec<String>,
    /// All together.
    pub(super) total: Amounts,
    /// What nobody used of PTUs, which no app bears.
    pub(super) idle_cost: String,
    /// The apps, those that cost most first.
    pub(super) apps: Vec<AppMoney>,
    /// Models with calls that no price is known of: what they cost is missing above, or there as in the standard
    /// service tier where only the tier that processed them has no price.
    pub(super) unpriced: Vec<Unpriced>,
    /// What Azure Monitor counts of each deployment's day beside what the gateway does, the newest first.
    pub(super) reconciliation: Vec<DriftDay>,
}

/// An app.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct AppMoney {
    /// Its name.
    pub(super) app: String,
    /// Its display name, where it is known by an Entra application id only, and Microsoft Graph was
    /// asked.
    pub(super) app_name: Option<String>,
    /// What it comes to.
    #[serde(flatten)]
    pub(super) amounts: Amounts,
    /// Percent of all apps' costs.
    pub(super) cost_percent: Option<f64>,
    /// Percent of all that PTUs served, by weighted tokens: who filled them.
    pub(super) ptu_percent: Option<f64>,
    /// Its budget of a month, where it has one.
    pub(super) budget: Option<String>,
    /// Percent of it that pay-as-you-go has cost, rounded down: what its calls are refused by. Shares of PTUs count
    /// for no budget.
    pub(super) budget_percent: Option<f64>,
}

/// What some calls come to.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Amounts {
    /// Calls.
    pub(super) calls: u64,
    /// Prompt and generated tokens.
    pub(super) tokens: u64,
    /// What pay-as-you-go cost.
    pub(super) payg_cost: String,
    /// The share of what PTUs cost.
    pub(super) ptu_cost: String,
    /// Both together.
    pub(super) cost: String,
    /// The part of the cost of pay-as-you-go that calls had which a full PTU passed on.
    pub(super) spilled_cost: String,
    /// Tokens that calls were spared whose answer was another call's too.
    pub(super) saved_tokens: u64,
    /// What those would have cost at pay-as-you-go.
    pub(super) saved_cost: String,
}

/// A model without a price.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Unpriced {
    /// The model.
    pub(super) model: String,
    /// Calls, and hours of PTUs, that no price is known of.
    pub(super) calls: u64,
}

impl Accounts {
    pub(super) fn new(config: &Config) -> Self {
        let budgets = config.apps.iter().filter_map(|app| {
            let budget = app.budget()?;
            Some((Arc::from(app.name.as_str()), budget))
        });
        Self {
            days: Days::new(config),
            currency: config.chargeback.currency.clone(),
            drift_percent: config.chargeback.drift_percent,
            budgets: budgets.collect(),
        }
    }

    /// What things cost.
    pub(super) const fn prices(&self) -> &Prices {
        &self.days.prices
    }
}

/// Reads a month. Without a store there is nothing.
///
/// # Errors
/// [`BillingError`].
pub(super) async fn read(console: &Console, wish: &Wish) -> Result<Money, BillingError> {
    let now = console.relay.clock.now();
    let month = wish.month(now)?;
    let text = month.to_string();
    let span = Span {
        month: Some(&text),
        ..Span::default()
    };
    let period = Period::read(span, now).map_err(BillingError::Asked)?;
    let mut sum = Sum::default();
    if let Some(store) = &console.store {
        let days = period.days().filter(|start| *start <= now).collect();
        let days = &console
            .accounts
            .days
            .read(store.as_ref(), days, now)
            .await?;
        days.iter().try_for_each(|day| sum.add(day))?;
    }
    let names = match &console.billing {
        Some(billing) => billing.names().await,
        None => Names::default(),
    };
    let mut money = sum.finish(&console.accounts, &names, month, now)?;
    if let Some(store) = &console.store {
        let days = reconcile::read(store.as_ref(), period).await?;
        let days = days.iter().rev();
        let allowed = console.accounts.drift_percent;
        money.reconciliation = days.map(|day| DriftDay::of(day, allowed)).collect();
    }
    Ok(money)
}

/// A month in the making.
#[derive(Default)]
struct Sum {
    apps: BTreeMap<Arc<str>, Spent>,
    idle: Decimal,
    unpriced: BTreeMap<Arc<str>, u64>,
}

impl Sum {
    fn add(&mut self, day: &Day) -> Result<(), BillError> {
        for (app, spent) in &day.apps {
            self.apps.entry(Arc::clone(app)).or_default().add(spent)?;
        }
        add_amount(&mut self.idle, day.idle)?;
        for (model, calls) in &day.unpriced {
            *self.unpriced.entry(Arc::clone(model)).or_default() += calls;
        }
        Ok(())
    }

    fn finish(
        self,
        accounts: &Accounts,
        names: &Names,
        month: Month,
        now: Timestamp,
    ) -> Result<Money, BillingError> {
        let mut total = Spent::default();
        for spent in self.apps.values() {
            total.add(spent)?;
        }
        let all = total.cost()?;
        let mut apps = Vec::with_capacity(self.apps.len());
        for (app, spent) in &self.apps {
            let cost = spent.cost()?;
            let mut one = app_money(accounts, app, spent, cost, all, total.weighted)?;
            one.app_name = names.of(app).map(str::to_owned);
            apps.push((cost, one));
        }
        apps.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.app.cmp(&other.app)));
        let unpriced = self.unpriced.into_iter().map(|(model, calls)| Unpriced {
            model: model.to_string(),
            calls,
        });
        Ok(Money {
            month: month.to_string(),
            currency: accounts.currency.clone(),
            as_of: now.rfc3339(),
            months: months(now),
            total: amounts(&total)?,
            idle_cost: self.idle.normalize().to_string(),
            apps: apps.into_iter().map(|(_, app)| app).collect(),
            unpriced: unpriced.collect(),
            reconciliation: Vec::new(),
        })
    }
}

/// This month and those before it.
fn months(now: Timestamp) -> Vec<String> {
    let before = |month: &Month| {
        let ms = month.start().unix_ms().checked_sub(1)?;
        Some(Month::of(Timestamp::from_unix_ms(ms)))
    };
    let months = std::iter::successors(Some(Month::of(now)), before);
    months.take(MONTHS).map(|month| month.to_string()).collect()
}

fn app_money(
    accounts: &Accounts,
    app: &Arc<str>,
    spent: &Spent,
    cost: Decimal,
    all: Decimal,
    all_weighted: u64,
) -> Result<AppMoney, BillingError> {
    let budget = accounts.budgets.get(app);
    Ok(AppMoney {
        app: app.to_string(),
        app_name: None,
        amounts: amounts(spent)?,
        cost_percent: part(cost, all),
        ptu_percent: percent(spent.weighted, all_weighted),
        budget: budget.map(|budget| budget.per_month.normalize().to_string()),
        budget_percent: budget.and_then(|budget| budget.percent(spent.payg_cost).try_into().ok()),
    })
}

fn amounts(spent: &Spent) -> Result<Amounts, BillingError> {
    let text = |amount: Decimal| amount.normalize().to_string();
    Ok(Amounts {
        calls: spent.calls,
        tokens: spent.tokens,
        payg_cost: text(spent.payg_cost),
        ptu_cost: text(spent.ptu_cost),
        cost: text(spent.cost()?),
        spilled_cost: text(spent.spilled_cost),
        saved_tokens: spent.saved_tokens,
        saved_cost: text(spent.saved_cost),
    })
}

/// The percentage that an amount is of another, to a tenth.
fn part(amount: Decimal, of: Decimal) -> Option<f64> {
    let tenths = amount
        .checked_mul(Decimal::ONE_THOUSAND)?
        .checked_div(of)?
        .round();
    let tenths: i32 = tenths.try_into().ok()?;
    Some(f64::from(tenths) / 10.0)
}

/// The apps' part of it as CSV.
pub(super) fn to_csv(money: &Money) -> String {
    let mut out = String::new();
    let head = [
        "month",
        "app",
        "calls",
        "tokens",
        "payg_cost",
        "ptu_cost",
        "cost",
        "spilled_cost",
        "saved_tokens",
        "saved_cost",
        "ptu_percent",
        "budget",
        "currency",
        "app_name",
    ];
    csv::line(&mut out, head);
    for one in &money.apps {
        let amounts = &one.amounts;
        let (calls, tokens) = (amounts.calls.to_string(), amounts.tokens.to_string());
        let saved_tokens = amounts.saved_tokens.to_string();
        let budget = one.budget.as_deref().unwrap_or_default();
        let ptu = one
            .ptu_percent
            .map_or(String::new(), |part| part.to_string());
        let cells = [
            &*money.month,
            &*one.app,
            &*calls,
            &*tokens,
            &*amounts.payg_cost,
            &*amounts.ptu_cost,
            &*amounts.cost,
            &*amounts.spilled_cost,
            &*saved_tokens,
            &*amounts.saved_cost,
            &*ptu,
            budget,
            &*money.currency,
            one.app_name.as_deref().unwrap_or_default(),
        ];
        csv::line(&mut out, cells);
    }
    out
}

#[cfg(test)]
mod tests;
