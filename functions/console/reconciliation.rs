//! What Azure Monitor counts of each deployment's day, beside what the gateway does.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use crate::gateway::budget::Month;
use crate::gateway::reconcile::Reconciled;
use crate::gateway::time::{DAY_MS, Timestamp};
use crate::store::{Store, StoreError, reconciliation};

/// How long what was read for the metrics is good, ms.
const GOOD_MS: u64 = 10 * 60_000;

/// How many days old the newest reconciled day is at most: it is looked at some hours after its end.
const NEWEST: [u64; 2] = [1, 2];

/// A deployment's day.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DriftDay {
    /// The UTC day.
    pub(super) day: String,
    /// The backend.
    pub(super) backend: String,
    /// The deployment.
    pub(super) deployment: String,
    /// Calls that got a good answer.
    pub(super) requests: u64,
    /// The same by Azure Monitor; null: it has no figure.
    pub(super) azure_requests: Option<u64>,
    /// Prompt tokens.
    pub(super) prompt_tokens: u64,
    /// The same by Azure Monitor.
    pub(super) azure_prompt_tokens: Option<u64>,
    /// Generated tokens.
    pub(super) generated_tokens: u64,
    /// The same by Azure Monitor.
    pub(super) azure_generated_tokens: Option<u64>,
    /// How far prompt or generated tokens, whichever are farther, are from Azure's count, percent of
    /// that. Null: not known.
    pub(super) drift_percent: Option<f64>,
    /// Whether that is more than `[chargeback] drift_percent` allows.
    pub(super) is_beyond: bool,
    /// What there is to know about it.
    pub(super) note: String,
}

impl DriftDay {
    /// Of a day, which may drift by `allowed` percent.
    pub(super) fn of(one: &Reconciled, allowed: u32) -> Self {
        Self {
            day: one.day.to_string(),
            backend: one.backend.to_string(),
            deployment: one.deployment.to_string(),
            requests: one.requests.ours,
            azure_requests: one.requests.metered,
            prompt_tokens: one.prompt.ours,
            azure_prompt_tokens: one.prompt.metered,
            generated_tokens: one.generated.ours,
            azure_generated_tokens: one.generated.metered,
            drift_percent: one.percent(),
            is_beyond: one.is_beyond(allowed),
            note: one.note(),
        }
    }
}

/// The newest reconciled day, for the metrics.
#[derive(Debug, Default)]
pub(super) struct Newest(tokio::sync::Mutex<(Timestamp, Arc<Vec<Reconciled>>)>);

impl Newest {
    /// Each deployment's newest day. A store that can't be read leaves what was read before.
    pub(super) async fn get(&self, store: &dyn Store, now: Timestamp) -> Arc<Vec<Reconciled>> {
        let mut state = self.0.lock().await;
        if now.ms_since(state.0) >= GOOD_MS {
            state.0 = now;
            match newest(store, now).await {
                Ok(found) => state.1 = Arc::new(found),
                Err(error) => {
                    tracing::warn!(%error, "the metrics can't read what Azure Monitor counted");
                }
            }
        }
        Arc::clone(&state.1)
    }
}

async fn newest(store: &dyn Store, now: Timestamp) -> Result<Vec<Reconciled>, StoreError> {
    let days =
        NEWEST.map(|ago| Timestamp::from_unix_ms(now.unix_ms().saturating_sub(ago * DAY_MS)));
    let mut months = days.map(Month::of).to_vec();
    months.dedup();
    let mut all = Vec::new();
    for month in months {
        all.extend(reconciliation::month(store, &month.to_string()).await?);
    }
    let since = days.map(Timestamp::day);
    all.retain(|one| since.iter().any(|day| **day == *one.day));
    all.sort_by(|a, b| {
        let name = |one: &Reconciled| (Arc::clone(&one.backend), Arc::clone(&one.deployment));
        (name(a), &b.day).cmp(&(name(b), &a.day))
    });
    all.dedup_by(|later, first| {
        (&later.backend, &later.deployment) == (&first.backend, &first.deployment)
    });
    Ok(all)
}
