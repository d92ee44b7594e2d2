//! Azure Monitor's answers, as they come (learn: rest/api/monitor/metrics/list): metrics, each with a series
//! for each of the values of its dimensions. A bucket without a value is unknown, no zero.

use serde::Deserialize;

use super::time::Timestamp;

/// The dimension that names the deployment.
pub const DEPLOYMENT: &str = "ModelDeploymentName";

/// The answer of the regional batch endpoint.
#[derive(Deserialize)]
pub(super) struct Batch {
    pub(super) values: Vec<Response>,
}

/// The answer for one resource.
#[derive(Deserialize)]
pub(super) struct Response {
    /// The resource's id; empty where it was asked for alone.
    #[serde(default, alias = "resourceId")]
    pub(super) resourceid: String,
    #[serde(default)]
    value: Vec<Metric>,
}

/// A metric of a resource.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metric {
    #[serde(default)]
    name: Name,
    #[serde(default)]
    error_code: String,
    #[serde(default)]
    error_message: String,
    #[serde(default)]
    pub(super) timeseries: Vec<Series>,
}

/// A metric's buckets for one value of each dimension that it is split by.
#[derive(Deserialize)]
pub(super) struct Series {
    #[serde(default)]
    metadatavalues: Vec<Dimension>,
    #[serde(default)]
    pub(super) data: Vec<Bucket>,
}

#[derive(Deserialize)]
struct Dimension {
    name: Name,
    value: String,
}

#[derive(Default, Deserialize)]
struct Name {
    value: String,
}

/// The values of a stretch of time.
#[derive(Deserialize)]
pub(super) struct Bucket {
    #[serde(rename = "timeStamp")]
    time_stamp: String,
    pub(super) average: Option<f64>,
    pub(super) maximum: Option<f64>,
    pub(super) total: Option<f64>,
}

impl Response {
    /// Its metrics.
    ///
    /// # Errors
    /// What Monitor says is wrong with one of them.
    pub(super) fn metrics(self) -> Result<Vec<Metric>, String> {
        let failed = |metric: &&Metric| !matches!(&*metric.error_code, "" | "Success");
        match self.value.iter().find(failed) {
            Some(metric) => Err(format!("{}: {}", metric.error_code, metric.error_message)),
            None => Ok(self.value),
        }
    }
}

impl Metric {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name.value
    }
}

impl Series {
    /// The value of a dimension, whose name comes in any case.
    pub(super) fn of(&self, dimension: &str) -> Option<&str> {
        let mut all = self.metadatavalues.iter();
        let found = all.find(|one| one.name.value.eq_ignore_ascii_case(dimension));
        found.map(|one| &*one.value)
    }
}

impl Bucket {
    /// When it begins.
    pub(super) fn start(&self) -> Option<Timestamp> {
        Timestamp::parse(&self.time_stamp)
    }
}
