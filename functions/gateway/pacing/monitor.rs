//! What Azure Monitor says of provisioned deployments: its answers read, and which of its minutes
//! count.
//!
//! The metric is `AzureOpenAIProvisionedManagedUtilizationV2`, a minute at a time, split by deployment
//! (Microsoft Learn, "Supported metrics for Microsoft.CognitiveServices/accounts"). A bucket without a
//! value is unknown. Monitor fills buckets late, the newest ones bit by bit.

use super::window::Minute;
use crate::gateway::monitor::{Batch, Bucket, DEPLOYMENT, Response};
use crate::gateway::ptu::Utilization;
use crate::gateway::time::Timestamp;

/// The metric's name.
pub const METRIC: &str = "AzureOpenAIProvisionedManagedUtilizationV2";

/// A minute counts only so long after its end, ms: before, its value may still change (users report
/// two to three minutes; azure-facts).
const SETTLED_MS: u64 = 120_000;

/// A zero counts only so long after its minute's end, ms: minutes that have not arrived were seen as
/// zeros.
const ZERO_SETTLED_MS: u64 = 300_000;

/// A minute as Azure Monitor has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonitorMinute {
    /// The minute.
    pub minute: Minute,
    /// The mean.
    pub average: Utilization,
    /// The highest.
    pub maximum: Utilization,
}

impl MonitorMinute {
    /// Whether its value will not change any more.
    pub const fn is_settled(&self, now: Timestamp) -> bool {
        let is_zero = self.maximum.tenths() == 0;
        let settled_ms = if is_zero { ZERO_SETTLED_MS } else { SETTLED_MS };
        now.ms_since(self.minute.end()) >= settled_ms
    }
}

/// The minutes of one deployment, as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// The deployment's name.
    pub deployment: String,
    /// Buckets that have a value, by time.
    pub minutes: Vec<MonitorMinute>,
}

/// The part of a batch's answer that is about one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The resource's id as the answer has it.
    pub resource_id: String,
    /// Its deployments; or what Monitor says is wrong with this resource.
    pub series: Result<Vec<Series>, String>,
}

/// Reads the answer for one resource: its deployments.
///
/// # Errors
/// What is wrong with it, or what Monitor says is.
pub fn read_one(body: &[u8]) -> Result<Vec<Series>, String> {
    let response: Response = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    all_series(response)
}

/// Reads the answer of the regional batch endpoint, a part a resource.
///
/// # Errors
/// What is wrong with the whole of it.
pub fn read_batch(body: &[u8]) -> Result<Vec<Part>, String> {
    let batch: Batch = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let parts = batch.values.into_iter().map(|response| Part {
        resource_id: response.resourceid.clone(),
        series: all_series(response),
    });
    Ok(parts.collect())
}

fn all_series(response: Response) -> Result<Vec<Series>, String> {
    let mut all = Vec::new();
    for series in response.metrics()?.iter().flat_map(|m| &m.timeseries) {
        if let Some(deployment) = series.of(DEPLOYMENT) {
            let minutes = series.data.iter().filter_map(minute);
            add(&mut all, deployment, minutes);
        }
    }
    Ok(all)
}

/// Puts minutes to those that are there. Where another dimension splits a deployment's minute (streamed
/// and not), the higher one counts.
fn add(all: &mut Vec<Series>, name: &str, minutes: impl Iterator<Item = MonitorMinute>) {
    if !all.iter().any(|series| series.deployment == name) {
        all.push(Series {
            deployment: name.to_owned(),
            minutes: Vec::new(),
        });
    }
    let Some(known) = all.iter_mut().find(|series| series.deployment == name) else {
        return;
    };
    for new in minutes {
        match known
            .minutes
            .iter_mut()
            .find(|old| old.minute == new.minute)
        {
            Some(old) => {
                old.average = old.average.max(new.average);
                old.maximum = old.maximum.max(new.maximum);
            }
            None => known.minutes.push(new),
        }
    }
    known.minutes.sort_by_key(|minute| minute.minute);
}

fn minute(bucket: &Bucket) -> Option<MonitorMinute> {
    let minute = Minute::of(bucket.start()?);
    let average = bucket.average.or(bucket.maximum)?;
    let maximum = bucket.maximum.unwrap_or(average);
    Some(MonitorMinute {
        minute,
        average: percent(average)?,
        maximum: percent(maximum)?,
    })
}

/// The header with which a provisioned deployment says how full it is, as `97.5%`. Microsoft's own
/// benchmark reads it (Azure/azure-openai-benchmark, `oairequester.py`); no document names it, so that
/// it may be absent or empty.
pub const HEADER: &str = "azure-openai-deployment-utilization";

/// Reads the value of [`HEADER`]; `None` for what is no percentage.
pub fn read_header(value: &str) -> Option<Utilization> {
    let number = value.trim().trim_end_matches('%').trim_end();
    number.parse().ok().and_then(percent)
}

/// A percentage of JSON; `None` for what is none.
pub fn percent(value: f64) -> Option<Utilization> {
    // A thousand times full is no utilization.
    let is_sound = value.is_finite() && (0.0..=100_000.0).contains(&value);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is within bounds"
    )]
    is_sound.then(|| Utilization::of_tenths((value * 10.0).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape of azure-rest-api-specs' GetMetric.json.
    const ONE: &str = r#"{"cost":0,"timespan":"2026-11-23T10:00:00Z/2026-11-23T10:10:00Z","interval":"PT1M","value":[{"id":"/subscriptions/S","type":"Microsoft.Insights/metrics","name":{"value":"AzureOpenAIProvisionedManagedUtilizationV2","localizedValue":"Provisioned-managed Utilization V2"},"unit":"Percent","timeseries":[{"metadatavalues":[{"name":{"value":"modeldeploymentname","localizedValue":"modeldeploymentname"},"value":"gpt-4o-ptu"}],"data":[{"timeStamp":"2026-11-23T10:01:00Z","average":61.24,"maximum":78.0},{"timeStamp":"2026-11-23T10:00:00Z","maximum":50},{"timeStamp":"2026-11-23T10:09:00Z"}]}],"errorCode":"Success"}],"namespace":"Microsoft.CognitiveServices/accounts","resourceregion":"eastus2"}"#;

    fn minute(text: &str) -> Minute {
        Minute::of(Timestamp::parse(text).unwrap())
    }

    #[test]
    fn an_empty_bucket_is_unknown_and_no_zero() {
        let all = read_one(ONE.as_bytes()).unwrap();
        let [series] = &all[..] else {
            panic!("{all:?}")
        };
        assert_eq!(series.deployment, "gpt-4o-ptu");
        let minutes: Vec<(String, u64, u64)> = series
            .minutes
            .iter()
            .map(|m| (m.minute.key(), m.average.tenths(), m.maximum.tenths()))
            .collect();
        let expected = [
            ("2026-11-23T10:00".to_owned(), 500, 500),
            ("2026-11-23T10:01".to_owned(), 612, 780),
        ];
        assert_eq!(minutes, expected);
    }

    #[test]
    fn a_batch_has_a_part_a_resource() {
        let part = ONE.replacen('{', r#"{"resourceid":"/subscriptions/S/a","#, 1);
        let batch =
            format!(r#"{{"values":[{part},{{"resourceid":"/subscriptions/S/b","value":[]}}]}}"#);
        let all = read_batch(batch.as_bytes()).unwrap();
        let series: Vec<(&str, usize)> = all
            .iter()
            .map(|one| (one.resource_id.as_str(), one.series.as_ref().unwrap().len()))
            .collect();
        assert_eq!(
            series,
            [("/subscriptions/S/a", 1), ("/subscriptions/S/b", 0)]
        );
    }

    #[test]
    fn what_is_wrong_with_one_part_of_a_batch_is_wrong_with_that_one_alone() {
        let part = |id: &str, code: &str| {
            let one = ONE.replace("Success", code);
            one.replacen('{', &format!(r#"{{"resourceid":"{id}","#), 1)
        };
        let parts = [part("/a", "ResourceNotFound"), part("/b", "Success")];
        let batch = format!(r#"{{"values":[{}]}}"#, parts.join(","));
        let all = read_batch(batch.as_bytes()).unwrap();
        let [wrong, good] = &all[..] else {
            panic!("{all:?}")
        };
        assert_eq!((&*wrong.resource_id, &*good.resource_id), ("/a", "/b"));
        let why = wrong.series.as_ref().unwrap_err();
        assert!(why.contains("ResourceNotFound"), "{why}");
        assert_eq!(good.series.as_ref().unwrap().len(), 1);
        assert!(read_batch(b"<html>").is_err());
    }

    #[test]
    fn of_streamed_and_other_calls_the_higher_figure_counts() {
        let low = r#"{"metadatavalues":[{"name":{"value":"ModelDeploymentName"},"value":"gpt-4o-ptu"}],"data":[{"timeStamp":"2026-11-23T10:01:00Z","average":70.0,"maximum":71}]},"#;
        let two = ONE.replacen(r#""timeseries":["#, &format!(r#""timeseries":[{low}"#), 1);
        let all = read_one(two.as_bytes()).unwrap();
        let last = all[0].minutes.last().unwrap();
        assert_eq!((last.average.tenths(), last.maximum.tenths()), (700, 780));
    }

    #[test]
    fn what_monitor_says_is_wrong_is_an_error() {
        let failed = ONE.replace("Success", "Throttled");
        assert!(
            read_one(failed.as_bytes())
                .unwrap_err()
                .contains("Throttled")
        );
        assert!(read_one(b"<html>").is_err());
        let odd = ONE.replace("61.24", "-1").replace("78.0", "-1");
        assert_eq!(read_one(odd.as_bytes()).unwrap()[0].minutes.len(), 1);
    }

    #[test]
    fn a_header_is_a_percentage_or_nothing() {
        let read = |value: &str| read_header(value).map(Utilization::tenths);
        assert_eq!(read("97.5%"), Some(975));
        assert_eq!(read(" 112 % "), Some(1120));
        for odd in ["", "%", "full", "-1%", "NaN%", "inf"] {
            assert_eq!(read(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn a_minute_counts_when_it_has_settled_and_a_zero_later() {
        let at = |ms| minute("2026-11-23T10:00:00Z").end().plus_ms(ms);
        let of = |tenths| MonitorMinute {
            minute: minute("2026-11-23T10:00:00Z"),
            average: Utilization::of_tenths(tenths),
            maximum: Utilization::of_tenths(tenths),
        };
        assert!(!of(1).is_settled(at(SETTLED_MS - 1)) && of(1).is_settled(at(SETTLED_MS)));
        assert!(!of(0).is_settled(at(ZERO_SETTLED_MS - 1)));
        assert!(of(0).is_settled(at(ZERO_SETTLED_MS)));
    }
}
