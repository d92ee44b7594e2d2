//! Azure Monitor's alerts, in the common alert schema (Microsoft Learn, "Common alert schema"; the
//! part of it that metric alerts fill).

use serde::Deserialize;

use super::monitor::{METRIC, percent};
use crate::gateway::monitor::DEPLOYMENT;
use crate::gateway::ptu::Utilization;
use crate::gateway::time::Timestamp;

/// The schema's name for itself.
const SCHEMA: &str = "azureMonitorCommonAlertSchema";

/// Whether an alert begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It begins.
    Fired,
    /// It is over.
    Resolved,
}

/// What an alert says of deployments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertNotice {
    /// Azure's id of it: the same when it is over.
    pub id: String,
    /// Whether it begins or ends.
    pub condition: Condition,
    /// When it fired.
    pub fired: Timestamp,
    /// The ids of the resources that it is about.
    pub resources: Vec<String>,
    /// The deployment that it is about; `None`: all of the resource's.
    pub deployment: Option<String>,
    /// How full it was at least.
    pub utilization: Utilization,
}

/// Why an alert can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlertError {
    /// It is not of the common alert schema.
    Unreadable(String),
    /// It is about something else than too high a utilization.
    Other(String),
}

impl std::fmt::Display for AlertError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(why) => write!(
                f,
                "the body is not of Azure Monitor's common alert schema (switch it on in the action group): {why}"
            ),
            Self::Other(what) => {
                write!(f, "the alert is not about {METRIC} being too high: {what}")
            }
        }
    }
}

impl std::error::Error for AlertError {}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Notification {
    schema_id: String,
    data: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    essentials: Essentials,
    #[serde(default)]
    alert_context: Context,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Essentials {
    alert_id: String,
    monitor_condition: String,
    #[serde(default, rename = "alertTargetIDs")]
    targets: Vec<String>,
    fired_date_time: String,
}

#[derive(Default, Deserialize)]
struct Context {
    #[serde(default)]
    condition: Option<Conditions>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conditions {
    #[serde(default)]
    all_of: Vec<Criterion>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Criterion {
    #[serde(default)]
    metric_name: String,
    #[serde(default)]
    operator: String,
    /// A text, although it is a number.
    #[serde(default)]
    threshold: Option<serde_json::Value>,
    #[serde(default)]
    metric_value: Option<f64>,
    #[serde(default)]
    dimensions: Vec<Dimension>,
}

#[derive(Deserialize)]
struct Dimension {
    name: String,
    value: String,
}

/// Reads what the alert's webhook was sent.
///
/// # Errors
/// Why it can't be used.
pub fn read(body: &[u8]) -> Result<AlertNotice, AlertError> {
    let unreadable = AlertError::Unreadable;
    let notification: Notification =
        serde_json::from_slice(body).map_err(|error| unreadable(error.to_string()))?;
    if notification.schema_id != SCHEMA {
        return Err(unreadable(format!(
            "schemaId is {:?}",
            notification.schema_id
        )));
    }
    let Data {
        essentials,
        alert_context,
    } = notification.data;
    let condition = match essentials.monitor_condition.as_str() {
        "Fired" => Condition::Fired,
        "Resolved" => Condition::Resolved,
        other => return Err(unreadable(format!("monitorCondition is {other:?}"))),
    };
    let fired = Timestamp::parse(&essentials.fired_date_time)
        .ok_or_else(|| unreadable("firedDateTime is no moment".into()))?;
    if essentials.alert_id.is_empty() {
        return Err(unreadable("alertId is empty".into()));
    }
    let conditions = alert_context
        .condition
        .map(|c| c.all_of)
        .unwrap_or_default();
    let criterion = conditions.iter().find(|c| c.metric_name == METRIC);
    let criterion = criterion.ok_or_else(|| {
        let metrics = conditions.iter().map(|c| c.metric_name.as_str());
        AlertError::Other(format!("its metrics are {:?}", metrics.collect::<Vec<_>>()))
    })?;
    if !criterion.operator.starts_with("GreaterThan") {
        return Err(AlertError::Other(format!(
            "its operator is {:?}",
            criterion.operator
        )));
    }
    let dimension = |d: &&Dimension| d.name.eq_ignore_ascii_case(DEPLOYMENT);
    let named = criterion.dimensions.iter().find(dimension);
    Ok(AlertNotice {
        id: essentials.alert_id,
        condition,
        fired,
        resources: essentials.targets,
        deployment: named.map(|d| d.value.clone()).filter(|name| name != "*"),
        utilization: criterion.utilization(),
    })
}

impl Criterion {
    /// The value that crossed the threshold, or the threshold, where there is one; else all.
    fn utilization(&self) -> Utilization {
        let threshold = match &self.threshold {
            Some(serde_json::Value::String(text)) => text.parse().ok(),
            Some(other) => other.as_f64(),
            None => None,
        };
        let known = [self.metric_value, threshold].into_iter().flatten();
        let highest = known.filter_map(percent).max();
        highest.unwrap_or(Utilization::FULL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape of Microsoft's sample payload of a metric alert.
    const FIRED: &str = include_str!("alert/fired.json");

    #[test]
    fn a_metric_alert_is_read() {
        let alert = read(FIRED.as_bytes()).unwrap();
        assert_eq!(alert.condition, Condition::Fired);
        assert_eq!(alert.deployment.as_deref(), Some("gpt-4o-ptu"));
        assert_eq!(alert.utilization.tenths(), 973);
        assert_eq!(alert.fired.rfc3339(), "2026-11-23T10:00:24.371Z");
        assert_eq!(alert.resources.len(), 1);
    }

    #[test]
    fn without_a_value_the_threshold_counts_and_without_both_it_is_full() {
        let at = |from: &str, to: &str| {
            let body = FIRED.replace("97.3", "null").replace(from, to);
            read(body.as_bytes()).unwrap().utilization.tenths()
        };
        assert_eq!(at("", ""), 900);
        assert_eq!(at("\"90\"", "85.5"), 855);
        assert_eq!(at("\"90\"", "null"), 1000);
    }

    #[test]
    fn what_is_no_alert_of_high_utilization_is_said() {
        let error = |from: &str, to: &str| read(FIRED.replace(from, to).as_bytes()).unwrap_err();
        assert!(matches!(
            error("azureMonitorCommon", "x"),
            AlertError::Unreadable(_)
        ));
        assert!(matches!(
            error("\"Fired\"", "\"Odd\""),
            AlertError::Unreadable(_)
        ));
        assert!(matches!(
            error("GreaterThan", "LessThan"),
            AlertError::Other(_)
        ));
        assert!(matches!(
            error("AzureOpenAIProvisionedManagedUtilizationV2", "Other"),
            AlertError::Other(_)
        ));
        assert!(matches!(read(b"{}"), Err(AlertError::Unreadable(_))));
        assert!(matches!(
            error("2026-11-23T", "x"),
            AlertError::Unreadable(_)
        ));
    }
}
