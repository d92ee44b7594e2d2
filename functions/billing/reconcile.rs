//! A look once a day, where the configuration asks for it, at what Azure Monitor counts of each
//! deployment, beside what is charged back of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::render::aligned;
use super::{CONCURRENT, Period};
use crate::azure::monitor::Monitor;
use crate::config::{Config, ResourceId};
use crate::current::Current;
use crate::gateway::budget::Month;
use crate::gateway::reconcile::{Counted, Figure, MeteredDay, Reconciled, Summary, summaries};
use crate::gateway::time::{DAY_MS, Timestamp};
use crate::host::clock::Clock;
use crate::store::{Answer, Store, StoreError, bill, reconciliation, sums};

/// Time between looks at whether the day's has been taken, by this or another instance.
const EVERY: Duration = Duration::from_secs(60 * 60);

/// How long after a day's end it is looked at first, ms. Azure says nothing of how late a figure may
/// be; minutes were seen to be up to a quarter of an hour late.
const SETTLED_MS: u64 = 60 * 60 * 1000;

/// The days that a look is at, by how many days ago they began: yesterday, and the day before that
/// again, for what came late on either side.
const DAYS: [u64; 2] = [1, 2];

/// What the gateway counted, by backend and deployment.
type Ours = BTreeMap<[Arc<str>; 2], Counted>;

/// Looks for ever, once a day among all instances. What fails is logged and done again an hour later.
pub async fn keep(reconciler: Current<Reconciler>, clock: Clock) {
    loop {
        // Instances that start together ask one after the other.
        tokio::time::sleep(Duration::from_secs(fastrand::u64(5..120))).await;
        if let Err(error) = reconciler.get().once(clock.now()).await {
            tracing::warn!(%error, "not every deployment was reconciled with Azure Monitor");
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Looks at the resources of a configuration.
#[derive(Debug)]
pub struct Reconciler {
    monitor: Monitor,
    store: Arc<dyn Store>,
    resources: Vec<Resource>,
    drift_percent: u32,
}

/// A backend, as Monitor knows it.
#[derive(Debug)]
struct Resource {
    backend: Arc<str>,
    id: ResourceId,
    /// Its deployments, and whether others call them past the gateway.
    deployments: Vec<(Arc<str>, bool)>,
}

impl Reconciler {
    /// Of the backends whose resource a configuration names.
    pub fn new(config: &Config, monitor: Monitor, store: Arc<dyn Store>) -> Self {
        Self {
            monitor,
            store,
            resources: config.backends.iter().filter_map(Resource::of).collect(),
            drift_percent: config.chargeback.drift_percent,
        }
    }

    /// As this one, of the next configuration.
    #[must_use]
    pub fn after(&self, config: &Config) -> Self {
        Self::new(config, self.monitor.clone(), Arc::clone(&self.store))
    }

    /// The look of the day of `now`, unless it has been taken, or it is too early for it.
    ///
    /// # Errors
    /// What of it failed, and why. It can be taken again.
    pub async fn once(&self, now: Timestamp) -> Result<(), String> {
        let since_midnight = now.unix_ms() % DAY_MS;
        if since_midnight < SETTLED_MS {
            return Ok(());
        }
        let (store, day) = (self.store.as_ref(), now.day());
        let taken = reconciliation::take(store, &day).await;
        if !taken.map_err(|error| error.to_string())? {
            return Ok(());
        }
        let today = now.unix_ms() - since_midnight;
        let mut failed = Vec::new();
        for ago in DAYS {
            let start = Timestamp::from_unix_ms(today.saturating_sub(ago * DAY_MS));
            failed.extend(self.look(start).await.err());
        }
        if failed.is_empty() {
            return Ok(());
        }
        // Where that fails too, the next day's look is the next one.
        let _ = reconciliation::give_back(store, &day).await;
        Err(failed.join("; "))
    }

    /// Looks at the day that begins at `start`, at each resource. What fails of one is no matter to the
    /// others.
    async fn look(&self, start: Timestamp) -> Result<(), String> {
        let day: Arc<str> = start.day().into();
        let ours = ours(self.store.as_ref(), &day, start).await;
        let ours = ours.map_err(|error| error.to_string())?;
        let month = Month::of(start).to_string();
        let before = reconciliation::month(self.store.as_ref(), &month).await;
        let before = before.map_err(|error| error.to_string())?;
        let mut failed = Vec::new();
        for resource in &self.resources {
            let looked = self.monitor.day(&resource.id, start).await;
            let kept = match looked {
                Ok(metered) => {
                    let found = resource.reconciled(&day, &ours, &metered);
                    let new = found.iter().filter(|one| !before.contains(one));
                    new.for_each(|one| log(one, self.drift_percent));
                    let kept = reconciliation::keep(self.store.as_ref(), &day, &found).await;
                    kept.map_err(|error| error.to_string())
                }
                Err(error) => Err(format!("Azure Monitor: {error}")),
            };
            failed.extend(kept.err().map(|why| format!("{}: {why}", resource.backend)));
        }
        if failed.is_empty() {
            return Ok(());
        }
        Err(format!("{day}: {}", failed.join("; ")))
    }
}

impl Resource {
    /// `None`: nobody said what Monitor calls it.
    fn of(backend: &crate::config::Backend) -> Option<Self> {
        let deployments = backend.deployments.iter();
        let deployments = deployments.map(|one| (Arc::from(one.name.as_str()), one.shared));
        Some(Self {
            backend: backend.name.as_str().into(),
            id: backend.resource_id.as_deref()?.parse().ok()?,
            deployments: deployments.collect(),
        })
    }

    /// Its deployments' day: those of the configuration, and others that calls are charged for, such as
    /// that of a spillover.
    fn reconciled(&self, day: &Arc<str>, ours: &Ours, metered: &MeteredDay) -> Vec<Reconciled> {
        let of_it = |[backend, deployment]: &&[Arc<str>; 2]| {
            // Calls that name no model, as those for a file do, are at no deployment.
            *backend == self.backend && !deployment.is_empty()
        };
        let called = ours.keys().filter(of_it).map(|[_, name]| (name, false));
        let mut all: BTreeMap<&Arc<str>, bool> = called.collect();
        all.extend(
            self.deployments
                .iter()
                .map(|(name, shared)| (name, *shared)),
        );
        let each = all.into_iter().filter_map(|(name, is_shared)| {
            let counted = ours.get(&[Arc::clone(&self.backend), Arc::clone(name)]);
            let counted = counted.copied().unwrap_or_default();
            let of = (&self.backend, name);
            Reconciled::of(day, of, is_shared, &counted, &metered.of(name))
        });
        each.collect()
    }
}

/// What all apps' calls of a day came to.
async fn ours(store: &dyn Store, day: &Arc<str>, start: Timestamp) -> Result<Ours, StoreError> {
    let apps = bill::apps(store, &Month::of(start).to_string()).await?;
    let each: Vec<Answer<'_, Ours>> = apps
        .iter()
        .map(|app| -> Answer<'_, Ours> { Box::pin(sums::by_deployment(store, app, day)) })
        .collect();
    let mut each = stream::iter(each).buffered(CONCURRENT);
    let mut all = Ours::new();
    while let Some(one) = each.try_next().await? {
        for (of, counted) in one {
            all.entry(of).or_default().add(&counted);
        }
    }
    Ok(all)
}

/// One line for what somebody should look into.
fn log(one: &Reconciled, drift_percent: u32) {
    let (backend, deployment, day) = (&*one.backend, &*one.deployment, &*one.day);
    let (prompt, generated) = (shown(&one.prompt), shown(&one.generated));
    let note = one.note();
    if !one.is_metered() && one.prompt.ours.saturating_add(one.generated.ours) > 0 {
        tracing::warn!(
            backend,
            deployment,
            day,
            prompt,
            generated,
            note,
            "what a deployment served can't be reconciled"
        );
    } else if one.is_beyond(drift_percent) && !one.is_shared {
        tracing::warn!(
            backend,
            deployment,
            day,
            prompt,
            generated,
            note,
            drift_percent = one.percent(),
            "Azure Monitor's count of a deployment's tokens is another than the gateway's"
        );
    }
}

fn shown(figure: &Figure) -> String {
    format!("{} of {}", figure.ours, metered(figure))
}

fn metered(figure: &Figure) -> String {
    let metered = figure.metered;
    metered.map_or_else(|| "unknown".to_owned(), |count| count.to_string())
}

/// What was found of the days of a period.
///
/// # Errors
/// When the store fails.
pub async fn read(store: &dyn Store, period: Period) -> Result<Vec<Reconciled>, StoreError> {
    let (from, to) = (period.from(), period.to());
    let mut all = Vec::new();
    for month in period.months() {
        all.extend(reconciliation::month(store, &month.to_string()).await?);
    }
    all.retain(|one| *from <= *one.day && *one.day <= *to);
    Ok(all)
}

/// The days by deployment, for a bill in JSON.
pub fn to_json(days: &[Reconciled]) -> Value {
    let one = |sum: &Summary| {
        json!({
            "backend": sum.backend,
            "deployment": sum.deployment,
            "days": sum.days,
            "unmetered_days": sum.unmetered_days,
            "requests": sum.requests.ours,
            "azure_requests": sum.requests.metered,
            "prompt_tokens": sum.prompt.ours,
            "azure_prompt_tokens": sum.prompt.metered,
            "generated_tokens": sum.generated.ours,
            "azure_generated_tokens": sum.generated.metered,
            "estimated_tokens": sum.estimated,
            "drift_percent": sum.percent(),
        })
    };
    summaries(days).iter().map(one).collect()
}

/// The same below a bill in a table; nothing where no day was reconciled.
pub fn to_text(days: &[Reconciled]) -> String {
    let sums = summaries(days);
    if sums.is_empty() {
        return String::new();
    }
    let mut table = vec![HEAD.map(str::to_owned).to_vec()];
    for sum in &sums {
        let metered_days = sum.days - sum.unmetered_days;
        let percent = sum.percent();
        let percent = percent.map_or("unknown".to_owned(), |drift| format!("{drift:+.2} %"));
        let cells = [
            format!("{}/{}", sum.backend, sum.deployment),
            format!("{metered_days} of {}", sum.days),
            sum.requests.ours.to_string(),
            metered(&sum.requests),
            sum.prompt.ours.to_string(),
            metered(&sum.prompt),
            sum.generated.ours.to_string(),
            metered(&sum.generated),
            percent,
        ];
        table.push(cells.to_vec());
    }
    let mut out =
        String::from("\nbeside Azure Monitor's count, of the days that it has one of:\n\n");
    out.push_str(&aligned(&table, 1));
    out
}

const HEAD: [&str; 9] = [
    "deployment",
    "days",
    "calls",
    "azure",
    "prompt",
    "azure",
    "generated",
    "azure",
    "drift",
];
