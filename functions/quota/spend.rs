//! What apps with a budget have spent this month, read from the chargeback sums.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Account, BudgetState, Month, Quotas, Spend};
use crate::gateway::time::{DAY_MS, Timestamp};
use crate::host::clock::Clock;
use crate::store::{Store, StoreError, sums};

/// Time from read to read.
const EVERY: Duration = Duration::from_secs(60);

/// Reads for ever.
pub(super) async fn keep(quotas: &Quotas, store: &dyn Store, clock: Clock) {
    let mut said = Said::default();
    loop {
        for (app, account) in quotas.accounts() {
            let now = clock.now();
            match read(store, app, now).await {
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

async fn read(store: &dyn Store, app: &str, now: Timestamp) -> Result<Spend, StoreError> {
    let month = Month::of(now);
    let spent = sums::spent(store, app, days(month, now)).await?;
    Ok(Spend {
        month,
        spent,
        as_of: now,
    })
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
