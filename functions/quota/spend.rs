//! What apps with a budget have spent this month, read from the chargeback sums.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;

use super::{Account, BudgetState, Month, Quotas, Spend};
use crate::gateway::time::{DAY_MS, Timestamp};
use crate::host::clock::Clock;
use crate::store::{Store, StoreError, sums};

/// Time from read to read.
const EVERY: Duration = Duration::from_secs(60);

/// How long what was spent on a day that is over is not read again. Its events may come late.
const OVER_MS: u64 = 3_600_000;

/// Reads for ever.
pub(super) async fn keep(current: impl Fn() -> Arc<Quotas>, store: &dyn Store, clock: Clock) {
    let mut said = Said::default();
    let mut known = Known::default();
    loop {
        let quotas = current();
        for (app, account) in quotas.accounts() {
            let now = clock.now();
            match known.read(store, app, now).await {
                Ok(spend) => account.set(spend),
                Err(error) => tracing::error!(
                    %error,
                    app = &**app,
                    "what the app has spent can't be read; its budget goes by what is known"
                ),
            }
            said.say(app, account, now);
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// What was spent on days that are over, by app and day, and when it was read.
#[derive(Default)]
struct Known(HashMap<(Arc<str>, String), (Decimal, Timestamp)>);

impl Known {
    async fn read(
        &mut self,
        store: &dyn Store,
        app: &Arc<str>,
        now: Timestamp,
    ) -> Result<Spend, StoreError> {
        let month = Month::of(now);
        // Yesterday's last events are still on their way.
        let over = month
            .start()
            .plus_ms(now.ms_since(month.start()).saturating_sub(DAY_MS));
        let over = over.day();
        self.0.retain(|_, (_, read)| now.ms_since(*read) < OVER_MS);
        let mut spent = Decimal::ZERO;
        for day in days(month, now) {
            let key = (Arc::clone(app), day);
            let amount = match self.0.get(&key) {
                Some((amount, _)) => *amount,
                None => sums::spent(store, app, &key.1).await?,
            };
            spent = spent.saturating_add(amount);
            if key.1 < over {
                self.0.entry(key).or_insert((amount, now));
            }
        }
        Ok(Spend {
            month,
            spent,
            as_of: now,
        })
    }
}

/// The days of the month up to today. Those that are over too: events may be counted late.
fn days(month: Month, now: Timestamp) -> impl Iterator<Item = String> {
    let first = month.start();
    let days = now.ms_since(first) / DAY_MS;
    (0..=days).map(move |day| first.plus_ms(day * DAY_MS).day())
}

/// What was logged of each app: each state once a month.
#[derive(Default)]
struct Said(HashMap<Arc<str>, (Month, BudgetState)>);

impl Said {
    fn say(&mut self, app: &Arc<str>, account: &Account, now: Timestamp) {
        let month = Month::of(now);
        let standing = account.standing(now);
        if !self.is_new(app, month, standing.state) {
            return;
        }
        let app = &**app;
        let (spent, budget) = (standing.spent, account.budget.per_month);
        match standing.state {
            BudgetState::Exhausted => {
                let action = account.budget.on_exhausted;
                tracing::warn!(app, %month, %spent, %budget, ?action, "the app's budget is spent");
            }
            BudgetState::Fine | BudgetState::Warned => {
                let percent = standing.percent;
                tracing::warn!(app, %month, %spent, %budget, %percent, "the app's budget is nearly spent");
            }
        }
    }

    fn is_new(&mut self, app: &Arc<str>, month: Month, state: BudgetState) -> bool {
        let last = self.0.insert(Arc::clone(app), (month, state));
        let before = last.filter(|(then, _)| *then == month);
        state > before.map_or(BudgetState::Fine, |(_, state)| state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23T17:06:30.000Z.
    const NOW: Timestamp = Timestamp::from_unix_ms(1_795_453_590_000);

    #[test]
    fn a_months_days_are_those_from_its_first_to_today() {
        let days: Vec<String> = days(Month::of(NOW), NOW).collect();
        assert_eq!(days.len(), 23);
        assert_eq!((&*days[0], &*days[22]), ("2026-11-01", "2026-11-23"));
        let first = Month::of(NOW).start();
        assert_eq!(super::days(Month::of(first), first).count(), 1);
    }

    #[test]
    fn each_state_is_said_once_a_month() {
        use BudgetState::{Exhausted, Fine, Warned};
        let mut said = Said::default();
        let app: Arc<str> = "portal".into();
        let month = Month::of(NOW);
        let states = [Fine, Warned, Warned, Exhausted, Exhausted];
        let new = states.map(|state| said.is_new(&app, month, state));
        assert_eq!(new, [false, true, false, true, false]);
        assert!(said.is_new(&"other".into(), month, Exhausted));
        assert!(!said.is_new(&app, month.next(), Fine));
        assert!(said.is_new(&app, month.next(), Warned));
    }
}
