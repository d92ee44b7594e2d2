//! What each app may still use: its limits at this instance and its budget, and the tasks that keep
//! both up to date. The rules are [`crate::gateway::limit`], [`crate::gateway::share`] and
//! [`crate::gateway::budget`].

mod sharing;
mod spend;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::{App, Config};
use crate::gateway::budget::{Budget, BudgetStanding, BudgetState, Month, OnExhausted, Spend};
use crate::gateway::limit::{self, AppLimits, Refused, Reservation};
use crate::gateway::share;
use crate::gateway::time::Timestamp;
use crate::host::clock::Clock;
use crate::store::Store;

/// What all apps may still use.
#[derive(Debug)]
pub struct Quotas {
    /// Apps without limits and budget are not in it.
    apps: HashMap<Arc<str>, Quota>,
    store: Option<Arc<dyn Store>>,
}

#[derive(Debug)]
struct Quota {
    limits: Option<Arc<AppLimits>>,
    budget: Option<Account>,
}

/// An app's budget and what is known of its spend.
#[derive(Debug)]
struct Account {
    budget: Budget,
    /// Shared with the account that the app had by the configuration before.
    known: Arc<Mutex<Option<Spend>>>,
}

impl Account {
    fn standing(&self, now: Timestamp) -> BudgetStanding {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.budget.standing(known.as_ref(), now)
    }

    fn set(&self, spend: Spend) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(spend);
    }
}

/// How an app stands, as its answers say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// With its limits; `None`: it has none.
    pub limits: Option<limit::Standing>,
    /// With its budget; `None`: it has none.
    pub budget: Option<BudgetStanding>,
}

/// What an app's call comes to.
#[derive(Debug)]
pub struct Admission {
    /// How the app stands.
    pub standing: Standing,
    /// The call's place in the limits, where there are any; or why it may not go on.
    pub verdict: Result<Option<Reservation>, Denial>,
}

impl Admission {
    /// Whether the call yields to others because the budget is spent.
    pub fn is_demoted(&self) -> bool {
        let action = self.standing.budget.and_then(|standing| standing.action);
        action == Some(OnExhausted::LowPriority)
    }
}

/// Why a call may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// A limit is reached.
    Limit(Refused),
    /// The budget is spent.
    Budget(BudgetStanding),
}

impl Quotas {
    /// The quotas of a configuration. Instances share limits by means of `store`; without one this
    /// instance has all of each, and what apps spend is not known.
    pub fn new(config: &Config, store: Option<Arc<dyn Store>>, now: Timestamp) -> Self {
        let none = Self {
            apps: HashMap::new(),
            store,
        };
        let quotas = none.after(config, now);
        if quotas.store.is_none() && quotas.accounts().next().is_some() {
            tracing::warn!(
                "no storage.tables: what apps spend is not known, so that no budget is held"
            );
        }
        quotas
    }

    /// The quotas of the next configuration. What apps have used and spent counts on; what they may
    /// use changes at once, for calls that come by these quotas too.
    #[must_use]
    pub fn after(&self, config: &Config, now: Timestamp) -> Self {
        let quotas = config.apps.iter().filter_map(|app| {
            let before = self.apps.get(app.name.as_str());
            let quota = Quota {
                limits: self.limits_after(before, app, now),
                budget: app.budget().map(|budget| Account {
                    budget,
                    known: before
                        .and_then(|before| before.budget.as_ref())
                        .map(|account| Arc::clone(&account.known))
                        .unwrap_or_default(),
                }),
            };
            let is_any = quota.limits.is_some() || quota.budget.is_some();
            is_any.then(|| (Arc::from(app.name.as_str()), quota))
        });
        Self {
            apps: quotas.collect(),
            store: self.store.clone(),
        }
    }

    fn limits_after(
        &self,
        before: Option<&Quota>,
        app: &App,
        now: Timestamp,
    ) -> Option<Arc<AppLimits>> {
        let models = || {
            let models = app.limits.iter();
            models.map(|limit| (Arc::from(limit.model.as_str()), limit.allowance()))
        };
        let name: Arc<str> = app.name.as_str().into();
        let fresh = AppLimits::new(name, app.allowance(), models(), now)?;
        if let Some(before) = before.and_then(|before| before.limits.as_ref()) {
            before.allow(app.allowance(), models(), now);
            return Some(Arc::clone(before));
        }
        if self.store.is_some() {
            for (id, _) in fresh.measure(now) {
                fresh.set_share(&id, share::UNKNOWN, now);
            }
        }
        Some(Arc::new(fresh))
    }

    /// Judges a call to `model`, which is empty where the call names none. `spends` says whether it
    /// may cost anything, `estimate` how many tokens it may use; that is asked only where it matters.
    pub fn admit(
        &self,
        app: &str,
        model: &str,
        spends: bool,
        estimate: impl FnOnce() -> u64,
        now: Timestamp,
    ) -> Admission {
        let Some(quota) = self.apps.get(app) else {
            return Admission {
                standing: Standing::default(),
                verdict: Ok(None),
            };
        };
        let mut standing = Standing {
            limits: None,
            budget: quota.budget.as_ref().map(|account| account.standing(now)),
        };
        let spent = standing
            .budget
            .filter(|budget| spends && budget.action == Some(OnExhausted::Refuse));
        // Before the limits, so that it uses none.
        let verdict = match (spent, &quota.limits) {
            (Some(spent), _) => Err(Denial::Budget(spent)),
            (None, None) => Ok(None),
            (None, Some(limits)) => match limits.admit(model, estimate(), now) {
                Ok(admitted) => {
                    standing.limits = Some(admitted.standing);
                    Ok(Some(admitted.reservation))
                }
                Err(refused) => {
                    standing.limits = Some(refused.standing);
                    Err(Denial::Limit(refused))
                }
            },
        };
        Admission { standing, verdict }
    }

    /// Shares the limits of the quotas that are `current` with the other instances, for ever. Ends at
    /// once where there is nothing to share them by.
    pub async fn keep_shares(current: impl Fn() -> Arc<Self>, clock: Clock) {
        if let Some(store) = &current().store {
            sharing::keep(current, store.as_ref(), clock).await;
        }
    }

    /// Reads what apps with a budget have spent, again and again. Ends at once where there is no
    /// store.
    pub async fn keep_spend(current: impl Fn() -> Arc<Self>, clock: Clock) {
        if let Some(store) = &current().store {
            spend::keep(current, store.as_ref(), clock).await;
        }
    }

    fn limits(&self) -> impl Iterator<Item = &Arc<AppLimits>> {
        self.apps.values().filter_map(|quota| quota.limits.as_ref())
    }

    fn accounts(&self) -> impl Iterator<Item = (&Arc<str>, &Account)> {
        let quotas = self.apps.iter();
        quotas.filter_map(|(app, quota)| Some((app, quota.budget.as_ref()?)))
    }

    fn set_all_shares(&self, share: limit::Share, now: Timestamp) {
        for limits in self.limits() {
            for (id, _) in limits.measure(now) {
                limits.set_share(&id, share, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_795_453_590_000);

    fn quotas(app: &str) -> Quotas {
        let text = format!(
            "[[backend]]\nname = \"a\"\nendpoint = \"http://127.0.0.1:9\"\n[[backend.deployment]]\nname = \"gpt-4o\"\nkind = \"payg\"\n\
             [[app]]\nname = \"free\"\n[[app]]\nname = \"portal\"\n{app}\n[auth]\nmode = \"key\"\n"
        );
        let config = Config::parse(&text, "test", &|_| None).unwrap_or_else(|e| panic!("{e}"));
        Quotas::new(&config, None, NOW)
    }

    fn admit(quotas: &Quotas, tokens: u64, now: Timestamp) -> Admission {
        quotas.admit("portal", "gpt-4o", true, || tokens, now)
    }

    #[test]
    fn an_app_without_limits_is_not_asked_for_its_estimate() {
        let quotas = quotas("requests_per_minute = 1");
        let unasked = || panic!("the estimate is not needed");
        let admission = quotas.admit("free", "gpt-4o", true, unasked, NOW);
        assert!(matches!(admission.verdict, Ok(None)));
        assert_eq!(admission.standing, Standing::default());
    }

    #[test]
    fn a_call_is_admitted_when_retry_after_says_and_not_a_millisecond_earlier() {
        for limits in ["requests_per_minute = 3", "tokens_per_minute = 250"] {
            let quotas = quotas(limits);
            for second in 0..3 {
                let now = NOW.plus_ms(second * 1000);
                assert!(admit(&quotas, 100, now).verdict.is_ok(), "{limits}");
            }
            let late = NOW.plus_ms(5000);
            let Err(Denial::Limit(refused)) = admit(&quotas, 100, late).verdict else {
                panic!("{limits}");
            };
            let wait = refused.retry_after_ms;
            let early = admit(&quotas, 100, late.plus_ms(wait - 1));
            assert!(early.verdict.is_err(), "{limits}");
            let then = admit(&quotas, 100, late.plus_ms(wait));
            assert!(then.verdict.is_ok(), "{limits}");
        }
    }

    #[test]
    fn a_spent_budget_uses_no_limit_and_holds_only_what_costs() {
        let quotas = quotas("requests_per_minute = 2\nbudget_per_month = \"10\"");
        let (_, account) = quotas.accounts().next().unwrap();
        account.set(Spend {
            month: Month::of(NOW),
            spent: 10.into(),
            as_of: NOW,
        });
        for _ in 0..5 {
            let admission = admit(&quotas, 1, NOW);
            assert!(matches!(admission.verdict, Err(Denial::Budget(_))));
            assert!(!admission.is_demoted());
        }
        let read = quotas.admit("portal", "", false, || 0, NOW);
        assert!(matches!(read.verdict, Ok(Some(_))));
        let requests = read.standing.limits.unwrap().requests.unwrap();
        assert_eq!(requests.remaining, 1);
    }
}
