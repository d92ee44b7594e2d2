//! The section `[telemetry]`: traces and metrics that are sent over OTLP.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Secret;
use super::endpoint::Endpoint;
use super::place::split_path;
use crate::gateway::route::percent_decode;

/// Traces of calls and the metrics of `/spillway/metrics`, sent to an OpenTelemetry collector over OTLP
/// (HTTP with protobuf). Absent: nothing is sent.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Where both go, for example `https://collector.contoso.com:4318`; `/v1/traces` and `/v1/metrics` are
    /// put behind it. `http://` is only for this machine.
    #[schemars(with = "Option<String>")]
    pub endpoint: Option<Collector>,
    /// Where traces go, the whole URL; absent: to `endpoint`, or nowhere.
    #[schemars(with = "Option<String>")]
    pub traces_endpoint: Option<Collector>,
    /// Where metrics go, the whole URL; absent: to `endpoint`, or nowhere.
    #[schemars(with = "Option<String>")]
    pub metrics_endpoint: Option<Collector>,
    /// Headers of each request, as a reference, in the form of OTEL_EXPORTER_OTLP_HEADERS:
    /// `NAME=VALUE,NAME=VALUE`, values percent-encoded.
    #[schemars(with = "Option<String>")]
    pub headers: Option<Secret>,
    /// The attribute `service.name`.
    #[schemars(length(min = 1, max = 255))]
    pub service_name: String,
    /// Further attributes of the resource, in the form of OTEL_RESOURCE_ATTRIBUTES: as `headers`.
    #[schemars(length(max = 4096))]
    pub resource_attributes: Option<String>,
    /// How many of 100 traces are sent of those that nobody else decides about.
    #[schemars(range(min = 0, max = 100))]
    pub sample_percent: u32,
    /// Whether a trace that comes with a call's `traceparent` is sent if that says it is recorded, and else
    /// not. Absent: yes, but not below the Functions host, whose proxy writes a `traceparent` of its own.
    pub follow_client: Option<bool>,
    /// Time from one sending of the metrics to the next, seconds.
    #[schemars(range(min = 1, max = 3600))]
    pub metrics_interval_seconds: u64,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            endpoint: None,
            traces_endpoint: None,
            metrics_endpoint: None,
            headers: None,
            service_name: "spillway".into(),
            resource_attributes: None,
            sample_percent: 100,
            follow_client: None,
            metrics_interval_seconds: 60,
        }
    }
}

impl Telemetry {
    /// The URL that traces are sent to, where they are.
    pub fn traces_url(&self) -> Option<String> {
        self.url(self.traces_endpoint.as_ref(), "/v1/traces")
    }

    /// The URL that metrics are sent to, where they are.
    pub fn metrics_url(&self) -> Option<String> {
        self.url(self.metrics_endpoint.as_ref(), "/v1/metrics")
    }

    /// The URL of a signal: its own, or the path below the common one (OpenTelemetry, "OTLP exporter
    /// configuration").
    fn url(&self, own: Option<&Collector>, path: &str) -> Option<String> {
        match (own, &self.endpoint) {
            (Some(own), _) => Some(own.to_string()),
            (None, Some(common)) => Some(format!(
                "{}{path}",
                common.to_string().trim_end_matches('/')
            )),
            (None, None) => None,
        }
    }
}

/// What a URL of a collector has to look like.
const RULE: &str = "must be a URL such as https://collector.contoso.com:4318";

/// The URL of a collector: an endpoint and a path.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Collector {
    endpoint: Endpoint,
    path: String,
}

impl FromStr for Collector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (authority, path) = split_path(text);
        if authority.contains('@') || path.contains(['?', '#']) {
            return Err(format!(
                "{RULE}, without a user, a query or a fragment: what is secret goes into `headers`"
            ));
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%".contains(&byte);
        if !path.bytes().all(is_plain) {
            return Err(format!(
                "{RULE}; its path has characters that it may not have"
            ));
        }
        let endpoint = authority.parse().map_err(|why: String| {
            // The rule of a backend's URL is another one.
            if why.contains("http://") {
                why
            } else {
                RULE.to_owned()
            }
        })?;
        let path = path.to_owned();
        Ok(Self { endpoint, path })
    }
}

impl TryFrom<String> for Collector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.endpoint, self.path)
    }
}

/// Reads `NAME=VALUE,NAME=VALUE`, values percent-encoded, as OpenTelemetry writes headers and resource
/// attributes.
///
/// # Errors
/// Which entry is none, by its place: what it says may be secret.
pub fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let entries = text.split(',').enumerate();
    let entries = entries.filter(|(_, entry)| !entry.trim().is_empty());
    let pairs = entries.map(|(place, entry)| {
        let pair = entry
            .split_once('=')
            .map(|(name, value)| (name.trim(), value.trim()));
        match pair {
            Some((name, value)) if !name.is_empty() => {
                Ok((name.to_owned(), percent_decode(value).into_owned()))
            }
            _ => Err(format!(
                "must be `NAME=VALUE,NAME=VALUE`; entry {} is not",
                place + 1
            )),
        }
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signals_own_url_is_whole_and_the_common_one_gets_the_path() {
        let telemetry = |endpoint: Option<&str>, traces: Option<&str>| Telemetry {
            endpoint: endpoint.map(|text| text.parse().unwrap()),
            traces_endpoint: traces.map(|text| text.parse().unwrap()),
            ..Telemetry::default()
        };
        let both = telemetry(Some("https://a.example/otlp/"), None);
        let urls = (both.traces_url(), both.metrics_url());
        assert_eq!(urls.0.unwrap(), "https://a.example/otlp/v1/traces");
        assert_eq!(urls.1.unwrap(), "https://a.example/otlp/v1/metrics");
        let one = telemetry(None, Some("http://127.0.0.1:4318/x"));
        assert_eq!(one.traces_url().unwrap(), "http://127.0.0.1:4318/x");
        assert_eq!(one.metrics_url(), None);
    }

    #[test]
    fn what_is_wrong_with_a_collector_is_said() {
        for (text, said) in [
            ("", "must be a URL"),
            ("collector:4317", "must be a URL"),
            ("grpc://collector:4317", "must be a URL"),
            ("http://collector.example:4318", "http:// is only for"),
            ("https://a.example/?key=canary", "`headers`"),
            ("https://canary@a.example/", "`headers`"),
            ("https://a.example/ canary", "its path"),
        ] {
            let message = text.parse::<Collector>().unwrap_err();
            assert!(message.contains(said), "{text}: {message}");
            assert!(!message.contains("canary"), "{message}");
        }
    }

    #[test]
    fn pairs_are_percent_decoded_and_split_at_the_first_sign() {
        let read = pairs("authorization=Basic%20YTpi==, x = 1,,").unwrap();
        let expected = [("authorization", "Basic YTpi=="), ("x", "1")];
        assert!(read.iter().map(|(a, b)| (&**a, &**b)).eq(expected));
        assert_eq!(pairs("").unwrap(), []);
        let wrong = pairs("a=1,canary").unwrap_err();
        assert!(
            wrong.contains("entry 2") && !wrong.contains("canary"),
            "{wrong}"
        );
    }
}
