//! What an attempt's end means: an answer for the client, or a mark and the next deployment.
//!
//! The rules are those of the design: connect errors, time-outs before the first byte, 408, 429,
//! 500, 502, 503 and 504 are the deployment's; 401, 403 and a missing deployment are the
//! gateway's own misconfiguration; any other 4xx is the client's and goes back untouched.

use super::deployment::MarkReason;
use super::retry_after::{Headers, retry_after_ms};
use super::time::Timestamp;

/// How long marks last, ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkTimes {
    /// Where the backend does not say.
    pub default_ms: u64,
    /// However long the backend asks for: waits of a day occur.
    pub max_ms: u64,
}

/// Why an attempt brought no answer at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// No connection: refused, unreachable, unknown host, TLS.
    Connect,
    /// No connection within the connect time-out.
    ConnectTimeout,
    /// The connection broke before the first byte of the body.
    Reset,
    /// Nothing came within the first-byte time-out.
    FirstByteTimeout,
    /// What came is no HTTP.
    Protocol,
}

impl NoAnswer {
    /// The word used in events and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Reset => "reset",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::Protocol => "protocol",
        }
    }
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to the client.
    Answer,
    /// The deployment is marked and the next one tried.
    Retry {
        /// Why.
        reason: MarkReason,
        /// How long the mark lasts, ms.
        ms: u64,
    },
}

/// Whether only the body tells what an answer with this status means (see [`verdict`]).
pub const fn needs_body(status: u16) -> bool {
    status == 404
}

/// What an answer's status and headers mean. `missing_deployment` says whether a 404's body
/// reports that the deployment does not exist (see [`is_missing_deployment`]).
pub fn verdict(
    status: u16,
    headers: &impl Headers,
    missing_deployment: bool,
    times: MarkTimes,
    now: Timestamp,
) -> Verdict {
    let reason = match status {
        429 => MarkReason::Throttled,
        408 | 500 | 502 | 503 | 504 => MarkReason::Failed,
        401 | 403 => MarkReason::Misconfigured,
        404 if missing_deployment => MarkReason::Misconfigured,
        _ => return Verdict::Answer,
    };
    let asked = retry_after_ms(headers, now).unwrap_or(times.default_ms);
    Verdict::Retry {
        reason,
        // A mark of no time would have the same deployment asked again at once.
        ms: asked.clamp(1, times.max_ms.max(1)),
    }
}

/// Whether a 404's body says that the deployment does not exist. Azure's code for a wrong path or
/// `api-version` is `404`, and for a response or file that is not there `not_found`: those are the
/// client's.
pub fn is_missing_deployment(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        error: Error<'a>,
    }
    #[derive(serde::Deserialize)]
    struct Error<'a> {
        #[serde(borrow)]
        code: std::borrow::Cow<'a, str>,
    }
    serde_json::from_slice::<Body<'_>>(body)
        .is_ok_and(|body| matches!(&*body.error.code, "DeploymentNotFound" | "model_not_found"))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::HashMap;

    use super::*;

    struct Map(HashMap<&'static str, &'static str>);

    impl Headers for Map {
        fn value(&self, name: &str) -> Option<Cow<'_, str>> {
            self.0.get(name).map(|value| Cow::Borrowed(*value))
        }
    }

    fn of(status: u16, headers: &[(&'static str, &'static str)]) -> Verdict {
        let times = MarkTimes {
            default_ms: 10_000,
            max_ms: 300_000,
        };
        let headers = Map(headers.iter().copied().collect());
        verdict(status, &headers, false, times, Timestamp::default())
    }

    const fn retry(reason: MarkReason, ms: u64) -> Verdict {
        Verdict::Retry { reason, ms }
    }

    #[test]
    fn the_deployments_failures_are_retried_elsewhere() {
        for status in [408, 500, 502, 503, 504] {
            assert_eq!(of(status, &[]), retry(MarkReason::Failed, 10_000));
        }
        assert_eq!(of(429, &[]), retry(MarkReason::Throttled, 10_000));
        assert_eq!(of(401, &[]), retry(MarkReason::Misconfigured, 10_000));
        assert_eq!(of(403, &[]), retry(MarkReason::Misconfigured, 10_000));
    }

    #[test]
    fn success_and_the_clients_mistakes_go_to_the_client() {
        for status in [200, 201, 204, 301, 400, 404, 405, 409, 413, 415, 422, 501] {
            assert_eq!(of(status, &[]), Verdict::Answer, "{status}");
        }
    }

    #[test]
    fn a_mark_lasts_as_long_as_the_backend_asks_within_bounds() {
        assert_eq!(
            of(429, &[("retry-after-ms", "250"), ("retry-after", "1")]),
            retry(MarkReason::Throttled, 250)
        );
        assert_eq!(
            of(429, &[("retry-after", "86400")]),
            retry(MarkReason::Throttled, 300_000)
        );
        assert_eq!(
            of(429, &[("retry-after", "0")]),
            retry(MarkReason::Throttled, 1)
        );
        assert_eq!(
            of(503, &[("retry-after", "2")]),
            retry(MarkReason::Failed, 2000)
        );
    }

    #[test]
    fn a_missing_deployment_is_told_from_what_the_client_named_wrongly() {
        assert!(needs_body(404) && !needs_body(400));
        assert!(is_missing_deployment(
            br#"{"error":{"code":"DeploymentNotFound","message":"m"}}"#
        ));
        for body in [
            r#"{"error":{"code":"404"}}"#,
            r#"{"error":{"code":null}}"#,
            "{}",
            "",
        ] {
            assert!(!is_missing_deployment(body.as_bytes()), "{body}");
        }
        let times = MarkTimes {
            default_ms: 1,
            max_ms: 1,
        };
        let missing = verdict(404, &Map(HashMap::new()), true, times, Timestamp::default());
        assert_eq!(missing, retry(MarkReason::Misconfigured, 1));
    }

    #[test]
    fn each_kind_of_silence_has_its_word() {
        let all = [
            NoAnswer::Connect,
            NoAnswer::ConnectTimeout,
            NoAnswer::Reset,
            NoAnswer::FirstByteTimeout,
            NoAnswer::Protocol,
        ];
        let words: std::collections::HashSet<_> = all.iter().map(|e| e.as_str()).collect();
        assert_eq!(words.len(), all.len());
    }
}
