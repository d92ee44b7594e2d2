//! How full the provisioned deployments of each model are, and how many slots that leaves open.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::meter::Meter;
use crate::config::{Config, Deployment};
use crate::current::Current;
use crate::gateway::event::{Kind, UsageEvent};
use crate::gateway::pacing::calibration::Calibration;
use crate::gateway::pacing::history::History;
use crate::gateway::pacing::known::Said;
use crate::gateway::pacing::rule::Pace;
use crate::gateway::pacing::window::{Capacity, Counts, DeploymentId, Windows};
use crate::gateway::ptu::{ModelRate, Utilization};
use crate::gateway::time::Timestamp;
use crate::host::clock::Clock;
use crate::store::{Store, StoreError, in_time, utilization};

/// How old the rows may be before they are read again, ms.
const READ_MS: u64 = 5_000;

/// How often this instance writes what it has seen.
const TELL: Duration = Duration::from_secs(5);

/// The provisioned deployments and what is known of them.
#[derive(Debug)]
pub struct Gauge {
    known: Current<Known>,
    windows: Mutex<Windows>,
    store: Option<Arc<dyn Store>>,
    instance: String,
    is_failing: AtomicBool,
}

/// What is known of a provisioned deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What each source says.
    pub said: Vec<Said>,
    /// What estimates from the calls are multiplied by.
    pub calibration: Calibration,
    /// What it comes to, and how much of that is believed, in thousandths; `None` where nothing is
    /// paced.
    pub figure: Option<(Utilization, u64)>,
}

/// The deployments of a configuration.
#[derive(Debug, Default)]
struct Known {
    /// `None`: nothing is paced, but what is seen is written all the same.
    pace: Option<Pace>,
    meters: BTreeMap<DeploymentId, Arc<Meter>>,
    models: BTreeMap<Arc<str>, Model>,
}

/// The deployments that a model's low-priority calls may go to.
#[derive(Debug, Default)]
struct Model {
    meters: Vec<Arc<Meter>>,
    history: Arc<Mutex<History>>,
}

impl Known {
    /// Those of the next configuration. A deployment that stays what it is keeps its meter.
    fn after(&self, config: &Config) -> Self {
        let mut next = Self {
            pace: config.pacing.as_ref().map(crate::config::Pacing::pace),
            ..Self::default()
        };
        for (meter, deployment) in config.backends.iter().flat_map(ptu_meters) {
            let before = self.meters.get(&meter.id);
            let meter = match before.filter(|before| before.is_like(&meter)) {
                Some(before) => Arc::clone(before),
                None => Arc::new(meter),
            };
            next.meters.insert(meter.id.clone(), Arc::clone(&meter));
            let name: Arc<str> = deployment.model().into();
            let before = self.models.get(&name);
            let history = before.map(|before| Arc::clone(&before.history));
            let model = next.models.entry(name).or_insert_with(|| Model {
                meters: Vec::new(),
                history: history.unwrap_or_default(),
            });
            // What is an app's own is no measure for the others' calls.
            if deployment.apps.is_none() {
                model.meters.push(meter);
            }
        }
        next.models.retain(|_, model| !model.meters.is_empty());
        next.warn();
        next
    }

    fn meter(&self, backend: &Arc<str>, deployment: &Arc<str>) -> Option<&Arc<Meter>> {
        let id = DeploymentId {
            backend: Arc::clone(backend),
            deployment: Arc::clone(deployment),
        };
        self.meters.get(&id)
    }

    fn warn(&self) {
        for meter in self
            .meters
            .values()
            .filter(|meter| meter.capacity.is_none())
        {
            if self.pace.is_some() {
                let (backend, deployment) = (&meter.id.backend, &meter.id.deployment);
                tracing::warn!(
                    %backend, %deployment,
                    "no ptus in the configuration: its calls say nothing of how full it is"
                );
            }
        }
    }
}

impl Gauge {
    /// The gauge of a configuration. What it sees it writes to `store`, where there is one.
    pub fn new(config: &Config, store: Option<Arc<dyn Store>>) -> Self {
        Self {
            known: Current::new(Known::default().after(config)),
            windows: Mutex::default(),
            store,
            instance: format!("{:032x}", fastrand::u128(..)),
            is_failing: AtomicBool::new(false),
        }
    }

    /// Goes by another configuration from now on.
    pub fn adopt(&self, config: &Config) {
        self.known.set(self.known.get().after(config));
    }

    /// The models whose low-priority calls are paced.
    pub fn models(&self) -> Vec<Arc<str>> {
        let known = self.known.get();
        let models = known.models.keys().filter(|_| known.pace.is_some());
        models.cloned().collect()
    }

    /// Whether a model's low-priority calls are paced.
    pub fn paces(&self, model: &str) -> bool {
        let known = self.known.get();
        known.pace.is_some() && known.models.contains_key(model)
    }

    /// The slots of a model that are open at `now`, when `in_use` are in use: what the fullest of its
    /// deployments leaves, as a call may go to any of them. Reads the table where that is due.
    pub async fn open(&self, model: &str, in_use: u32, now: Timestamp) -> u32 {
        let known = self.known.get();
        let (Some(model), Some(pace)) = (known.models.get(model), &known.pace) else {
            return 0;
        };
        lock(&model.history).note(in_use, now);
        for meter in &model.meters {
            self.read(meter, now).await;
        }
        let history = lock(&model.history);
        let meters = model.meters.iter();
        let open = meters.map(|meter| {
            let known = meter.known();
            let figure = known.figure(meter.capacity, &history, in_use, pace, now);
            pace.open_beside(|slots| figure.with(slots))
        });
        open.min().unwrap_or(0)
    }

    /// What is known of one of a model's provisioned deployments, with `in_use` slots in use; `None`
    /// where the configuration has no such deployment. Reads the table where that is due.
    pub async fn reading(
        &self,
        id: &DeploymentId,
        model: &str,
        in_use: u32,
        now: Timestamp,
    ) -> Option<Reading> {
        let config = self.known.get();
        let meter = config.meters.get(id)?;
        self.read(meter, now).await;
        let known = meter.known();
        let paced = config.pace.as_ref().zip(config.models.get(model));
        let figure = paced.map(|(pace, model)| {
            let history = lock(&model.history);
            let figure = known.figure(meter.capacity, &history, in_use, pace, now);
            (figure.with(in_use), figure.trust())
        });
        Some(Reading {
            said: known.said(meter.capacity, now),
            calibration: known.calibration,
            figure,
        })
    }

    /// The rule; `None` where nothing is paced.
    pub fn pace(&self) -> Option<Pace> {
        self.known.get().pace
    }

    async fn read(&self, meter: &Meter, now: Timestamp) {
        let Some(store) = &self.store else { return };
        if now.ms_since(meter.read_at()) < READ_MS {
            return;
        }
        let sheet = utilization::read(&**store, &meter.id, Meter::since(now));
        match in_time(sheet).await {
            Ok(sheet) => {
                self.works();
                meter.saw(sheet, now);
            }
            // What is known ages, and with it the figure becomes careful.
            Err(error) => self.fails(&error),
        }
    }

    /// Counts calls that have ended: each once.
    pub fn note<'a>(&self, events: impl IntoIterator<Item = &'a UsageEvent>, now: Timestamp) {
        let known = self.known.get();
        let mut windows = lock(&self.windows);
        for event in events {
            let served = event.served();
            if let Some(meter) = known.meter(served.backend, served.deployment) {
                windows.note(event, meter.rate, now);
            }
        }
    }

    /// Notes what an answer said of a deployment, by its header or, with a 429, by its status.
    pub fn saw(
        &self,
        backend: &Arc<str>,
        deployment: &Arc<str>,
        said: Utilization,
        now: Timestamp,
    ) {
        let known = self.known.get();
        if known.pace.is_none() {
            return;
        }
        if let Some(meter) = known.meter(backend, deployment) {
            meter.was_said(said, now);
        }
    }

    /// Writes what this instance has seen, for ever. Ends at once where there is nowhere to write it.
    pub async fn keep(self: Arc<Self>, clock: Clock) {
        let Some(store) = &self.store else { return };
        loop {
            tokio::time::sleep(TELL).await;
            match self.tell(&**store, clock.now()).await {
                Ok(()) => self.works(),
                Err(error) => self.fails(&error),
            }
        }
    }

    /// Writes what this instance has seen and not written yet.
    ///
    /// # Errors
    /// When the store fails. What could not be written is written the next time.
    pub async fn tell(&self, store: &dyn Store, now: Timestamp) -> Result<(), StoreError> {
        let changed = lock(&self.windows).changed(now);
        let known = self.known.get();
        let mut failed = Ok(());
        for (minute, id, used) in changed {
            let counts = Counts {
                minute,
                used,
                seen: now,
            };
            let meter = known.meters.get(&id);
            let capacity = meter.and_then(|meter| meter.capacity);
            let comes_to = capacity.map(|c| c.utilization(used.all, 60_000));
            let write = utilization::counts(&counts, &self.instance, comes_to);
            if let Err(error) = in_time(utilization::write(store, &id, vec![write])).await {
                lock(&self.windows).take_back(minute, &id);
                failed = Err(error);
            }
        }
        for meter in known.meters.values() {
            let Some(heard) = meter.to_tell() else {
                continue;
            };
            let write = utilization::header(heard.utilization, heard.last, &self.instance);
            match in_time(utilization::write(store, &meter.id, vec![write])).await {
                Ok(()) => meter.told(heard),
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    fn works(&self) {
        if self.is_failing.swap(false, Relaxed) {
            tracing::info!("table utilization can be read and written again");
        }
    }

    fn fails(&self, error: &StoreError) {
        if !self.is_failing.swap(true, Relaxed) {
            tracing::error!(%error, "table utilization can't be read or written: pacing becomes careful");
        }
    }
}

fn ptu_meters(backend: &crate::config::Backend) -> impl Iterator<Item = (Meter, &Deployment)> {
    let ptu = backend.deployments.iter().filter(|d| d.kind == Kind::Ptu);
    ptu.map(|deployment| {
        let id = DeploymentId {
            backend: backend.name.as_str().into(),
            deployment: deployment.name.as_str().into(),
        };
        let capacity = deployment.ptus;
        let capacity = capacity.map(|ptus| Capacity::of(ptus, deployment.base_model()));
        let rate = ModelRate::of(deployment.base_model()).unwrap_or(ModelRate::ASSUMED);
        (Meter::new(id, capacity, rate), deployment)
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
