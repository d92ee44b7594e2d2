//! Sends traces of calls and the metrics of `/spillway/metrics` over OTLP, where the configuration names a
//! collector (`[telemetry]`).
//!
//! Neither costs a call anything. A call's spans are made of its usage event, after that was brought to the
//! store; metrics are the counters that there are anyway. All of it is done in a thread of its own, behind a
//! bounded queue: a collector that is slow or gone holds nothing up.

mod collector;
mod complaints;
mod messages;
mod metrics;
mod queue;
mod spans;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use self::collector::Collector;
use self::complaints::Complaints;
use self::messages::metrics::{Request as MetricsRequest, ResourceMetrics, ScopeMetrics};
use self::messages::trace::{Request as TraceRequest, ResourceSpans, ScopeSpans};
use self::messages::{KeyValue, Resource, Scope};
use self::queue::{CAPACITY, Sampling, Traced};
pub use self::queue::{Dropped, Queue};
pub use self::spans::Target;
use crate::config::Telemetry as Settings;
use crate::config::telemetry::pairs;
use crate::gateway::event::Attempt;
use crate::gateway::id::new_id;
use crate::gateway::metrics::family::Family;
use crate::gateway::time::Timestamp;
use crate::host::clock::Clock;

/// How long calls gather before their spans are sent.
const GATHER: Duration = Duration::from_millis(200);

/// Most calls of one request: two or three spans each, of less than a kilobyte. Collectors take 4 MiB.
const MAX_CALLS: usize = 512;

/// Sends traces and metrics.
pub struct Telemetry {
    traces: Option<Traces>,
    metrics: Option<Collector>,
    every: Duration,
    resource: Resource,
    clock: Clock,
    complaints: Complaints,
    queue: Queue,
}

struct Traces {
    calls: Receiver<Traced>,
    collector: Collector,
}

impl Telemetry {
    /// What sends what these settings say. `follows_client`: whether a client decides about its traces where
    /// they do not say.
    ///
    /// # Errors
    /// When a header can't stand in a request, or the system has no usable certificate roots.
    pub fn new(settings: &Settings, follows_client: bool) -> Result<Self, String> {
        let headers = settings
            .headers
            .as_ref()
            .map_or("", |headers| headers.expose());
        let headers = pairs(headers)?;
        let collector =
            |url: Option<String>| url.map(|url| Collector::new(url, &headers)).transpose();
        let sampling = Sampling {
            percent: settings.sample_percent,
            follows_client: settings.follow_client.unwrap_or(follows_client),
        };
        let (queue, calls) = Queue::new(CAPACITY, sampling);
        let traces = collector(settings.traces_url())?;
        let clock = Clock::new();
        Ok(Self {
            traces: traces.map(|collector| Traces { calls, collector }),
            metrics: collector(settings.metrics_url())?,
            every: Duration::from_secs(settings.metrics_interval_seconds),
            resource: resource(settings, clock.now())?,
            clock,
            complaints: Complaints::new(queue.dropped()),
            queue,
        })
    }

    /// Where calls are put in, where traces are sent.
    pub fn queue(&self) -> Option<Queue> {
        self.traces.as_ref().map(|_| self.queue.clone())
    }

    /// Counts the spans that could not be sent, where traces are sent.
    pub fn dropped(&self) -> Option<Arc<Dropped>> {
        self.traces.as_ref().map(|_| self.queue.dropped())
    }

    /// Sends until `stop` says so; then, once more, all that there is. `target` says what is known of an
    /// attempt's deployment, `families` what is counted since `started`.
    pub async fn run(
        mut self,
        target: impl Fn(&Attempt) -> Option<Target>,
        families: impl AsyncFn() -> Vec<Family>,
        started: Timestamp,
        stop: watch::Receiver<bool>,
    ) {
        let traces = self.traces.take();
        let send_traces = async {
            if let Some(traces) = traces {
                self.send_traces(traces, &target, stop.clone()).await;
            }
        };
        tokio::join!(
            send_traces,
            self.send_metrics(families, started, stop.clone())
        );
    }

    async fn send_traces(
        &self,
        traces: Traces,
        target: &dyn Fn(&Attempt) -> Option<Target>,
        mut stop: watch::Receiver<bool>,
    ) {
        let Traces {
            mut calls,
            collector,
        } = traces;
        let mut batch = Vec::new();
        loop {
            let goes_on = tokio::select! {
                taken = calls.recv_many(&mut batch, MAX_CALLS) => taken > 0,
                // An error: nobody is left who could ask.
                _ = stop.wait_for(|stop| *stop) => false,
            };
            if goes_on {
                let _ = timeout(GATHER, stop.wait_for(|stop| *stop)).await;
            }
            loop {
                while batch.len() < MAX_CALLS
                    && let Ok(call) = calls.try_recv()
                {
                    batch.push(call);
                }
                if batch.is_empty() {
                    break;
                }
                self.send_spans(&collector, &batch, target, stop.clone())
                    .await;
                batch.clear();
            }
            if !goes_on {
                return;
            }
        }
    }

    async fn send_spans(
        &self,
        collector: &Collector,
        batch: &[Traced],
        target: &dyn Fn(&Attempt) -> Option<Target>,
        stop: watch::Receiver<bool>,
    ) {
        let mut random = fastrand::Rng::new();
        let spans = batch
            .iter()
            .flat_map(|call| spans::of(call, target, &mut random));
        let spans: Vec<_> = spans.collect();
        let count = u64::try_from(spans.len()).unwrap_or(u64::MAX);
        let request = TraceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope()),
                    spans,
                }],
            }],
        };
        let failed = |why: &str| self.complaints.hear("traces", why);
        match collector.take(&request, failed, stop).await {
            Ok(said) => self.complaints.rejected("traces", &said, count),
            Err(why) => {
                self.complaints.dropped(count);
                self.complaints.hear("traces", &why);
            }
        }
        self.complaints.look();
    }

    async fn send_metrics(
        &self,
        families: impl AsyncFn() -> Vec<Family>,
        started: Timestamp,
        mut stop: watch::Receiver<bool>,
    ) {
        let Some(collector) = &self.metrics else {
            return;
        };
        let mut due = interval_at(Instant::now() + self.every, self.every);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let goes_on = tokio::select! {
                _ = due.tick() => true,
                _ = stop.wait_for(|stop| *stop) => false,
            };
            let metrics = metrics::of(&families().await, started, self.clock.now());
            let request = MetricsRequest {
                resource_metrics: vec![ResourceMetrics {
                    resource: Some(self.resource.clone()),
                    scope_metrics: vec![ScopeMetrics {
                        scope: Some(scope()),
                        metrics,
                    }],
                }],
            };
            let failed = |why: &str| self.complaints.hear("metrics", why);
            // What is not taken now is in the next ones, which count from the same start.
            let taken = collector.take(&request, failed, stop.clone());
            match timeout(self.every, taken).await {
                Ok(Ok(said)) => self.complaints.rejected("metrics", &said, 0),
                Ok(Err(why)) => failed(&why),
                Err(_) => {}
            }
            if !goes_on {
                return;
            }
        }
    }
}

/// What sends: the service, this instance of it, and what the settings add.
fn resource(settings: &Settings, now: Timestamp) -> Result<Resource, String> {
    let added = settings.resource_attributes.as_deref().unwrap_or_default();
    let mut all: BTreeMap<String, String> = pairs(added)?.into_iter().collect();
    all.entry("service.version".into())
        .or_insert_with(|| env!("CARGO_PKG_VERSION").into());
    all.entry("service.instance.id".into())
        .or_insert_with(|| new_id(now, &mut fastrand::Rng::new()));
    // A name of its own goes before that of the attributes (OpenTelemetry, OTEL_SERVICE_NAME).
    all.insert("service.name".into(), settings.service_name.clone());
    let attributes = all
        .iter()
        .map(|(key, value)| KeyValue::new(key, value.as_str()));
    Ok(Resource {
        attributes: attributes.collect(),
    })
}

fn scope() -> Scope {
    Scope {
        name: "spillway".into(),
        version: env!("CARGO_PKG_VERSION").into(),
    }
}

/// A moment in nanoseconds since the Unix epoch.
const fn nanoseconds(at: Timestamp) -> u64 {
    at.unix_ms().saturating_mul(1_000_000)
}
