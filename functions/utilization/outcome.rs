//! What asking for a deployment's utilization came to, in a line that an operator can act on.

use std::fmt;
use std::sync::Arc;

use crate::azure::monitor::MonitorError;
use crate::gateway::pacing::monitor::MonitorMinute;
use crate::gateway::pacing::window::DeploymentId;
use crate::store::StoreError;

/// The outcome of one deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The deployment.
    pub id: DeploymentId,
    /// What became of it.
    pub outcome: Outcome,
}

/// What asking for a deployment came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its minutes are written.
    Written {
        /// The newest that counts.
        newest: MonitorMinute,
        /// Its age, from its end on, ms.
        age_ms: u64,
        /// Minutes that were new or had changed.
        minutes: usize,
    },
    /// Monitor has no minute of it that counts: it was not called, or its figures are late.
    NoData,
    /// Monitor asked to be left alone, and still is.
    Waits {
        /// For how long, ms.
        ms: u64,
    },
    /// Monitor could not say.
    Failed(Arc<MonitorError>),
    /// The table could not be read or written.
    NotStored(StoreError),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written {
                newest,
                age_ms,
                minutes,
            } => write!(
                f,
                "{} in the minute {} ({} s ago, at most {}); {minutes} minutes written",
                newest.average,
                newest.minute.key(),
                age_ms / 1000,
                newest.maximum,
            ),
            Self::NoData => f.write_str(
                "Azure Monitor has no figure of the last minutes: no calls, or it is late; unknown is not idle",
            ),
            Self::Waits { ms } => write!(f, "not asked: Azure Monitor throttled, {} s more", ms.div_ceil(1000)),
            Self::Failed(error) => write!(f, "Azure Monitor: {error}"),
            Self::NotStored(error) => write!(f, "table utilization: {error}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DeploymentId {
            backend,
            deployment,
        } = &self.id;
        write!(f, "{backend}/{deployment}: {}", self.outcome)
    }
}

impl Report {
    /// Writes it to the log: what somebody has to act on as an error.
    pub fn log(&self) {
        let (backend, deployment) = (&*self.id.backend, &*self.id.deployment);
        match &self.outcome {
            Outcome::Written { .. } | Outcome::NoData => {
                tracing::info!(backend, deployment, "utilization: {self}");
            }
            Outcome::Waits { .. } => tracing::warn!(backend, deployment, "utilization: {self}"),
            Outcome::Failed(error) => match **error {
                MonitorError::Throttled { .. } | MonitorError::Unavailable(_) => {
                    tracing::warn!(backend, deployment, "utilization: {self}");
                }
                _ => tracing::error!(backend, deployment, "utilization: {self}"),
            },
            Outcome::NotStored(_) => tracing::error!(backend, deployment, "utilization: {self}"),
        }
    }
}
