//! What Azure Monitor has of the deployments of a resource on a day.

use std::collections::{BTreeMap, BTreeSet};

use crate::gateway::monitor::{Bucket, DEPLOYMENT, Response};
use crate::gateway::time::{DAY_MS, Timestamp};

/// The metric of prompt tokens (Microsoft Learn, "Supported metrics for
/// Microsoft.CognitiveServices/accounts", as the others).
pub const PROMPT: &str = "ProcessedPromptTokens";

/// The metric of generated tokens.
pub const GENERATED: &str = "GeneratedTokens";

/// The metric of calls, with whatever status.
pub const REQUESTS: &str = "AzureOpenAIRequests";

/// The dimension of calls that has the status of the answer.
pub const STATUS: &str = "StatusCode";

/// More than any hour of a deployment comes to.
const MOST: f64 = 1e15;

/// What Azure has of a deployment's day; `None`: no figure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metered {
    /// Calls that got a good answer.
    pub requests: Option<u64>,
    /// Prompt tokens.
    pub prompt: Option<u64>,
    /// Generated tokens.
    pub generated: Option<u64>,
    /// The beginnings of the hours that there is any figure of.
    hours: BTreeSet<Timestamp>,
}

impl Metered {
    /// Hours that there is any figure of.
    pub fn hours(&self) -> u8 {
        u8::try_from(self.hours.len()).unwrap_or(u8::MAX)
    }

    /// Whether it has no call and no token.
    pub fn is_nothing(&self) -> bool {
        let all = [self.requests, self.prompt, self.generated];
        all.into_iter().all(|count| count.unwrap_or(0) == 0)
    }
}

/// What Azure has of a resource's deployments on a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeteredDay {
    start: Timestamp,
    /// By name in lower case.
    deployments: BTreeMap<String, Metered>,
}

impl MeteredDay {
    /// Nothing yet of the day that begins at `start`.
    pub const fn new(start: Timestamp) -> Self {
        Self {
            start,
            deployments: BTreeMap::new(),
        }
    }

    /// What there is of a deployment.
    pub fn of(&self, deployment: &str) -> Metered {
        let found = self.deployments.get(&deployment.to_ascii_lowercase());
        found.cloned().unwrap_or_default()
    }

    /// Adds what an answer has of the three metrics. `most` is the number of series that were asked for:
    /// where as many came, others may have been left out.
    ///
    /// # Errors
    /// What is wrong with the answer, or what Monitor says is.
    pub fn add(&mut self, body: &[u8], most: usize) -> Result<(), String> {
        let response: Response = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        for metric in response.metrics()? {
            if metric.timeseries.len() >= most {
                let name = metric.name();
                return Err(format!(
                    "{most} series of {name} came, and there may be more"
                ));
            }
            for series in &metric.timeseries {
                let Some(deployment) = series.of(DEPLOYMENT) else {
                    continue;
                };
                let known = self.deployments.entry(deployment.to_ascii_lowercase());
                let known = known.or_default();
                let (sum, counts) = match metric.name() {
                    PROMPT => (&mut known.prompt, true),
                    GENERATED => (&mut known.generated, true),
                    REQUESTS => {
                        let status = series.of(STATUS).unwrap_or_default();
                        (&mut known.requests, status.starts_with('2'))
                    }
                    _ => continue,
                };
                for (hour, total) in series.data.iter().filter_map(hour) {
                    if hour < self.start || hour.ms_since(self.start) >= DAY_MS {
                        continue;
                    }
                    known.hours.insert(hour);
                    let sum = sum.get_or_insert(0);
                    *sum = sum.saturating_add(if counts { total } else { 0 });
                }
            }
        }
        Ok(())
    }
}

/// The beginning of a bucket and its total, where it has one.
fn hour(bucket: &Bucket) -> Option<(Timestamp, u64)> {
    let total = bucket.total.filter(|total| (0.0..=MOST).contains(total))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is within bounds"
    )]
    Some((bucket.start()?, total.round() as u64))
}
