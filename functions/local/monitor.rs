//! The simulated Azure Monitor of `spillway local`: the metrics of one resource, in the form of the
//! real one, and late as the real one is.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::simulation::Metered;
use crate::gateway::pacing::monitor::METRIC;
use crate::gateway::pacing::window::Minute;
use crate::gateway::ptu::Utilization;
use crate::gateway::time::Timestamp;

/// How late a minute is to be had, in whole minutes: users of Azure report two to three.
pub const LATE_MIN: u64 = 3;

/// The longest time that is asked for, minutes.
const MAX_MINUTES: u64 = 24 * 60;

/// A simulated resource and the id that Azure Monitor would know it by.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The id.
    pub resource_id: String,
    /// What is known of its deployments.
    pub metered: Metered,
}

/// Starts the Monitor on a loopback port of its own, in the runtime that this is called from.
///
/// # Errors
/// When no port is free.
pub async fn start(watched: Vec<Watched>, late_min: u64) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let monitor = Arc::new(Monitor { watched, late_min });
    let router = Router::new().fallback(handle).with_state(monitor);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

#[derive(Debug)]
struct Monitor {
    watched: Vec<Watched>,
    late_min: u64,
}

async fn handle(State(monitor): State<Arc<Monitor>>, request: Request) -> Response {
    let path = request.uri().path().to_ascii_lowercase();
    let resource = path.strip_suffix("/providers/microsoft.insights/metrics");
    let watched = resource.and_then(|id| {
        let mut all = monitor.watched.iter();
        all.find(|watched| watched.resource_id.eq_ignore_ascii_case(id))
    });
    let Some(watched) = watched else {
        let body = json!({"error": {"code": "ResourceNotFound", "message": "There is no such simulated resource."}});
        return (StatusCode::NOT_FOUND, Json(body)).into_response();
    };
    let query = request.uri().query().unwrap_or_default();
    match timespan(query) {
        Some((from, until)) => {
            let now = watched.metered.now();
            let seen = Minute::of(now).before(monitor.late_min);
            Json(answer(&watched.metered, from, until, seen)).into_response()
        }
        None => {
            let body = json!({"error": {"code": "BadRequest", "message": "timespan must be two moments with a / between them, at most a day."}});
            (StatusCode::BAD_REQUEST, Json(body)).into_response()
        }
    }
}

/// The two moments of the query's `timespan`.
fn timespan(query: &str) -> Option<(Timestamp, Timestamp)> {
    let span = query
        .split('&')
        .find_map(|part| part.strip_prefix("timespan="))?;
    let span = span.replace("%2F", "/").replace("%3A", ":");
    let (from, until) = span.split_once('/')?;
    let (from, until) = (Timestamp::parse(from)?, Timestamp::parse(until)?);
    (until.ms_since(from) <= MAX_MINUTES * 60_000).then_some((from, until))
}

/// A bucket a minute; those from `seen` on, and those without calls, are empty.
fn answer(metered: &Metered, from: Timestamp, until: Timestamp, seen: Minute) -> Value {
    let mut series = Vec::new();
    for (deployment, minutes) in metered.minutes() {
        let mut data = Vec::new();
        let mut minute = Minute::of(from);
        while minute.start() < until {
            let value = minutes.get(&minute).filter(|_| minute < seen);
            data.push(bucket(minute, value.copied()));
            minute = Minute::of(minute.end());
        }
        let name = json!({"value": "modeldeploymentname", "localizedValue": "modeldeploymentname"});
        series.push(json!({
            "metadatavalues": [{"name": name, "value": deployment}],
            "data": data,
        }));
    }
    json!({
        "cost": 0,
        "interval": "PT1M",
        "namespace": "Microsoft.CognitiveServices/accounts",
        "value": [{
            "type": "Microsoft.Insights/metrics",
            "name": {"value": METRIC, "localizedValue": METRIC},
            "unit": "Percent",
            "timeseries": series,
            "errorCode": "Success",
        }],
    })
}

fn bucket(minute: Minute, value: Option<Utilization>) -> Value {
    let time = format!("{}:00Z", minute.key());
    match value {
        Some(value) => {
            let percent = value.to_string();
            let percent: Option<f64> = percent.trim_end_matches('%').parse().ok();
            json!({"timeStamp": time, "average": percent, "maximum": percent})
        }
        None => json!({"timeStamp": time}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timespan_is_two_moments() {
        let query = "a=b&timespan=2026-11-23T10:00:00Z%2F2026-11-23T10:10:00Z&c=d";
        let (from, until) = timespan(query).unwrap();
        assert_eq!(until.ms_since(from), 600_000);
        assert_eq!(timespan("a=b"), None);
        assert_eq!(
            timespan("timespan=2020-11-23T10:00:00Z/2026-11-23T10:10:00Z"),
            None
        );
    }
}
