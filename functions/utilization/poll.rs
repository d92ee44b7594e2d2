//! One run: asks Monitor, writes what it says.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;

use super::outcome::{Outcome, Report};
use crate::azure::monitor::{MAX_BATCH, Monitor, MonitorError};
use crate::config::{Backend, Config, Deployment, ResourceId};
use crate::gateway::event::Kind;
use crate::gateway::pacing::monitor::{MonitorMinute, Part, Series};
use crate::gateway::pacing::window::{Capacity, DeploymentId, Minute};
use crate::gateway::time::{DAY_MS, Timestamp};
use crate::host::clock::Clock;
use crate::store::utilization::{self, Current, Sheet, hours};
use crate::store::{Store, Write};

/// Minutes that a run asks for, and after runs were missed, at most.
const MINUTES: (u64, u64) = (10, 30);

/// From so many resources of a subscription and region on they are asked for together.
const TOGETHER_FROM: usize = 10;

/// Resources that are asked for at the same time.
const AT_ONCE: usize = 8;

/// How long hours are kept, ms: as the console's.
const HOURS_MS: u64 = 40 * DAY_MS;

/// Runs in whose minute old rows are deleted: one in so many.
const SWEEP_MINUTES: u64 = 10;

/// Asks Monitor for the provisioned deployments of a configuration.
#[derive(Debug)]
pub struct Poller {
    monitor: Monitor,
    store: Arc<dyn Store>,
    resources: Vec<Resource>,
    /// All provisioned deployments: those have rows, too, that Monitor is not asked for, and those that
    /// were deleted.
    provisioned: Vec<DeploymentId>,
    keep_minutes: u64,
    clock: Clock,
    /// Until when a resource is left alone, by its index.
    waits: Mutex<HashMap<usize, Timestamp>>,
}

/// A backend with provisioned deployments, as Monitor knows it.
#[derive(Debug)]
struct Resource {
    id: ResourceId,
    region: Option<String>,
    deployments: Vec<(DeploymentId, Option<Capacity>)>,
}

type Answer = Result<Vec<Series>, Arc<MonitorError>>;

impl Poller {
    /// The poller of a configuration.
    pub fn new(config: &Config, monitor: Monitor, store: Arc<dyn Store>) -> Self {
        let backends = config.backends.iter();
        let resources = backends.clone().filter_map(Resource::of).collect();
        let provisioned = backends.flat_map(|backend| {
            let all = backend.deployments.iter().chain(&backend.deleted);
            provisioned(backend, all).map(|(id, _)| id)
        });
        let provisioned = provisioned.collect();
        let keep_days = config.pacing.clone().unwrap_or_default().keep_days;
        Self {
            monitor,
            store,
            resources,
            provisioned,
            keep_minutes: u64::from(keep_days) * DAY_MS / 60_000,
            clock: Clock::new(),
            waits: Mutex::default(),
        }
    }

    /// The poller of the next configuration.
    #[must_use]
    pub fn after(&self, config: &Config) -> Self {
        Self::new(config, self.monitor.clone(), Arc::clone(&self.store))
    }

    /// Asks for all deployments and writes what comes; each one's outcome.
    pub async fn poll(&self) -> Vec<Report> {
        self.poll_at(self.clock.now()).await
    }

    /// As [`Self::poll`], at a moment.
    pub async fn poll_at(&self, now: Timestamp) -> Vec<Report> {
        let mut reports = Vec::new();
        for (index, answer) in self.ask_all(now).await {
            let Some(resource) = self.resources.get(index) else {
                continue;
            };
            for (id, capacity) in &resource.deployments {
                let outcome = match &answer {
                    Asked::Waits(ms) => Outcome::Waits { ms: *ms },
                    Asked::Answered(Err(error)) => Outcome::Failed(Arc::clone(error)),
                    Asked::Answered(Ok(all)) => {
                        let of_it = |series: &&Series| *series.deployment == *id.deployment;
                        let series = all.iter().find(of_it);
                        let minutes = series.map(|s| &*s.minutes).unwrap_or_default();
                        self.write(id, *capacity, minutes, now).await
                    }
                };
                reports.push(Report {
                    id: id.clone(),
                    outcome,
                });
            }
        }
        if Minute::of(now).is_nth(SWEEP_MINUTES) {
            self.sweep(now).await;
        }
        reports
    }

    async fn ask_all(&self, now: Timestamp) -> Vec<(usize, Asked)> {
        let (mut asked, mut alone) = (Vec::new(), Vec::new());
        let mut together: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
        for (index, resource) in self.resources.iter().enumerate() {
            if let Some(ms) = self.waits(index, now) {
                asked.push((index, Asked::Waits(ms)));
            } else if let Some(region) = &resource.region {
                let group = (resource.id.subscription.as_str(), region.as_str());
                together.entry(group).or_default().push(index);
            } else {
                alone.push(index);
            }
        }
        for ((_, region), indexes) in together {
            if indexes.len() < TOGETHER_FROM {
                alone.extend(indexes);
                continue;
            }
            for some in indexes.chunks(MAX_BATCH) {
                match self.ask_many(region, some, now).await {
                    Ok(answers) => asked.extend(answers),
                    Err(error) if may_be_one_s(&error) => {
                        tracing::info!(region, %error, "asking for one resource at a time");
                        alone.extend(some);
                    }
                    Err(error) => {
                        let error = Arc::new(error);
                        for index in some {
                            self.note(*index, &error, now);
                            asked.push((*index, Asked::Answered(Err(Arc::clone(&error)))));
                        }
                    }
                }
            }
        }
        for some in alone.chunks(AT_ONCE) {
            let answers = join_all(some.iter().map(|index| self.ask_one(*index, now))).await;
            asked.extend(
                some.iter()
                    .copied()
                    .zip(answers.into_iter().map(Asked::Answered)),
            );
        }
        asked
    }

    async fn ask_one(&self, index: usize, now: Timestamp) -> Answer {
        let Some(resource) = self.resources.get(index) else {
            return Err(Arc::new(MonitorError::NotFound(String::new())));
        };
        let from = self.from(resource, now).await;
        let answer = self.monitor.one(&resource.id, from, now).await;
        answer.map_err(|error| {
            let error = Arc::new(error);
            self.note(index, &error, now);
            error
        })
    }

    async fn ask_many(
        &self,
        region: &str,
        indexes: &[usize],
        now: Timestamp,
    ) -> Result<Vec<(usize, Asked)>, MonitorError> {
        let resources = indexes
            .iter()
            .filter_map(|index| self.resources.get(*index));
        let ids: Vec<&ResourceId> = resources.map(|resource| &resource.id).collect();
        let from = self.missing_from(indexes, now).await;
        let mut parts = self.monitor.many(region, &ids, from, now).await?;
        let answers = indexes.iter().zip(ids).map(|(index, id)| {
            let same = |part: &Part| part.resource_id.eq_ignore_ascii_case(&id.text);
            let found = parts.iter().position(same);
            let answer = match found.map(|at| parts.swap_remove(at).series) {
                Some(series) => series.map_err(MonitorError::Unreadable),
                None => Err(MonitorError::NotFound(
                    "the answer for the region has no part for it".into(),
                )),
            };
            (*index, Asked::Answered(answer.map_err(Arc::new)))
        });
        Ok(answers.collect())
    }

    /// From when on these resources are asked for together: from where the one that misses most does.
    async fn missing_from(&self, indexes: &[usize], now: Timestamp) -> Timestamp {
        let mut from = Minute::of(now).before(MINUTES.0).start();
        for some in indexes.chunks(AT_ONCE) {
            let resources = some.iter().filter_map(|index| self.resources.get(*index));
            let each = join_all(resources.map(|resource| self.from(resource, now))).await;
            from = each.into_iter().fold(from, Timestamp::min);
        }
        from
    }

    /// From when on a resource is asked for: some minutes ago, or where runs were missed, the newest
    /// minute that is known.
    async fn from(&self, resource: &Resource, now: Timestamp) -> Timestamp {
        let minute = Minute::of(now);
        let mut from = minute.before(MINUTES.0);
        for (id, _) in &resource.deployments {
            let sheet = utilization::read(&*self.store, id, minute).await;
            // A table that can't be read shows when its rows are written.
            if let Some(current) = sheet.ok().and_then(|sheet| sheet.current) {
                from = from.min(current.newest.minute);
            }
        }
        from.max(minute.before(MINUTES.1)).start()
    }

    fn waits(&self, index: usize, now: Timestamp) -> Option<u64> {
        let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let until = waits.get(&index).filter(|until| **until > now)?;
        Some(until.ms_since(now))
    }

    fn note(&self, index: usize, error: &MonitorError, now: Timestamp) {
        if let MonitorError::Throttled { retry_after_ms } = error {
            let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
            waits.insert(index, now.plus_ms(*retry_after_ms));
        }
    }

    /// Writes the minutes that count, and what follows from them, in one transaction.
    async fn write(
        &self,
        id: &DeploymentId,
        capacity: Option<Capacity>,
        minutes: &[MonitorMinute],
        now: Timestamp,
    ) -> Outcome {
        let settled = minutes.iter().filter(|minute| minute.is_settled(now));
        let settled: Vec<MonitorMinute> = settled.copied().collect();
        let Some(newest) = settled.iter().max_by_key(|minute| minute.minute).copied() else {
            return Outcome::NoData;
        };
        let since = Minute::of(now).before(MINUTES.1 + 1);
        let sheet = match utilization::read(&*self.store, id, since).await {
            Ok(sheet) => sheet,
            Err(error) => return Outcome::NotStored(error),
        };
        let changed = settled
            .iter()
            .filter(|minute| !sheet.known.monitor.contains(minute));
        let changed: Vec<MonitorMinute> = changed.copied().collect();
        // Before the minutes: what fails here is written with them the next time.
        if let Err(error) = hours::write(&*self.store, id, &changed).await {
            return Outcome::NotStored(error);
        }
        let mut writes: Vec<Write> = changed
            .iter()
            .map(|minute| utilization::monitor(minute, now))
            .collect();
        let written = writes.len();
        let current = current(&sheet, capacity, &settled, newest, now);
        writes.push(utilization::current(&current));
        match utilization::write(&*self.store, id, writes).await {
            Ok(()) => Outcome::Written {
                newest: current.newest,
                age_ms: now.ms_since(current.newest.minute.end()),
                minutes: written,
            },
            Err(error) => Outcome::NotStored(error),
        }
    }

    async fn sweep(&self, now: Timestamp) {
        let before = Minute::of(now).before(self.keep_minutes);
        for id in &self.provisioned {
            match utilization::sweep(&*self.store, id, before).await {
                Ok(0) => {}
                Ok(deleted) => {
                    tracing::info!(deleted, backend = %id.backend, "old rows of utilization were deleted")
                }
                Err(error) => tracing::warn!(%error, "old rows of utilization can't be deleted"),
            }
            let before = Timestamp::from_unix_ms(now.unix_ms().saturating_sub(HOURS_MS));
            if let Err(error) = hours::sweep(&*self.store, id, before).await {
                tracing::warn!(%error, "old hours of utilization can't be deleted");
            }
        }
    }
}

/// Whether what refuses many resources at once may be about one of them, or the role on the subscription
/// alone: each may have an answer then.
const fn may_be_one_s(error: &MonitorError) -> bool {
    match error {
        MonitorError::Forbidden(_) | MonitorError::NotFound(_) | MonitorError::Unreadable(_) => {
            true
        }
        MonitorError::Throttled { .. } | MonitorError::Unavailable(_) => false,
    }
}

/// What asking for a resource came to.
enum Asked {
    Waits(u64),
    Answered(Answer),
}

impl Resource {
    /// `None`: it has no provisioned deployments, or nobody said what Monitor calls it.
    fn of(backend: &Backend) -> Option<Self> {
        let deployments: Vec<_> = provisioned(backend, &backend.deployments).collect();
        if deployments.is_empty() {
            return None;
        }
        let Some(id) = backend
            .resource_id
            .as_deref()
            .and_then(|id| id.parse().ok())
        else {
            let backend = &backend.name;
            tracing::warn!(
                backend,
                "no resource_id in the configuration: Azure Monitor can't be asked how full its deployments are"
            );
            return None;
        };
        Some(Self {
            id,
            region: backend.region.clone(),
            deployments,
        })
    }
}

/// The provisioned ones of a backend's deployments, and what they hold where that is known.
fn provisioned<'b>(
    backend: &'b Backend,
    deployments: impl IntoIterator<Item = &'b Deployment>,
) -> impl Iterator<Item = (DeploymentId, Option<Capacity>)> {
    let deployments = deployments.into_iter();
    let ptu = deployments.filter(|deployment| deployment.kind == Kind::Ptu);
    ptu.map(|deployment| {
        let id = DeploymentId {
            backend: backend.name.as_str().into(),
            deployment: deployment.name.as_str().into(),
        };
        let ptus = deployment.ptus;
        (
            id,
            ptus.map(|ptus| Capacity::of(ptus, deployment.base_model())),
        )
    })
}

/// The newest minute that counts, and what estimates are multiplied by: learnt from each minute once.
fn current(
    sheet: &Sheet,
    capacity: Option<Capacity>,
    settled: &[MonitorMinute],
    newest: MonitorMinute,
    now: Timestamp,
) -> Current {
    let before = sheet.current;
    let learnt = before.map_or(Minute::of(Timestamp::default()), |c| c.learnt);
    let (calibration, learnt) = sheet.known.learn(capacity, settled, learnt);
    let known = before
        .map(|c| c.newest)
        .filter(|n| n.minute > newest.minute);
    Current {
        newest: known.unwrap_or(newest),
        asked: now,
        calibration,
        learnt,
    }
}
