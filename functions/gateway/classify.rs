//! What an attempt's end means: an answer for the client, or a mark and the next deployment.
//!
//! The rules are those of the design: connect errors, time-outs before the first byte, 408, 429,
//! 500, 502, 503 and 504 are the deployment's; 401, 403 and a missing deployment are the
//! gateway's own misconfiguration; any other 4xx is the client's and goes back untouched. A stream
//! can say the same in its first events, under a 200.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

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
    /// A stream ended before anything of the answer came.
    EmptyStream,
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
            Self::EmptyStream => "empty_stream",
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
    let ms = mark_ms(headers, times, now);
    Verdict::Retry { reason, ms }
}

/// How long a mark lasts, by the headers of the answer that it is set for, ms. (A stream that is
/// refused under a 200 has its `retry-after` too.)
pub fn mark_ms(headers: &impl Headers, times: MarkTimes, now: Timestamp) -> u64 {
    let asked = retry_after_ms(headers, now).unwrap_or(times.default_ms);
    // A mark of no time would have the same deployment asked again at once.
    asked.clamp(1, times.max_ms.max(1))
}

/// Whether a 404's body says that the deployment does not exist. Azure's code for a wrong path or
/// `api-version` is `404`, and for a response or file that is not there `not_found`: those are the
/// client's.
pub fn is_missing_deployment(body: &[u8]) -> bool {
    error_code(body).is_some_and(|code| matches!(&*code, "DeploymentNotFound" | "model_not_found"))
}

/// A refusal that depends on the deployment: another one of the same model may take the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnRefusal {
    /// What the call brings of an earlier answer's reasoning was encrypted by another resource, and only that
    /// one can read it.
    EncryptedContent,
    /// The call is longer than the deployment takes: a provisioned one takes shorter prompts of some models
    /// than pay-as-you-go does.
    ContextLength,
}

/// Whether a 400's body says what another deployment may not say.
///
/// Of encrypted content Azure says `invalid_encrypted_content` (openai/codex, issue 9045), or no code and that it
/// "could not be verified" (higress, issue 3197).
pub fn own_refusal(body: &[u8]) -> Option<OwnRefusal> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        error: Error<'a>,
    }
    #[derive(Deserialize)]
    struct Error<'a> {
        #[serde(borrow, default)]
        code: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        message: Option<Cow<'a, str>>,
    }
    let Body { error } = serde_json::from_slice(body).ok()?;
    let message = error.message.unwrap_or_default();
    match error.code.as_deref() {
        Some("invalid_encrypted_content") => Some(OwnRefusal::EncryptedContent),
        Some("context_length_exceeded") => Some(OwnRefusal::ContextLength),
        _ if message.contains("encrypted content") && message.contains("could not be verified") => {
            Some(OwnRefusal::EncryptedContent)
        }
        _ => None,
    }
}

/// Whether a backend's 401 or 403 says that the gateway's identity may not do this one thing there, which says
/// nothing of calls to deployments. (Azure's code for a data action that no role grants.)
pub fn is_denied_action(body: &[u8]) -> bool {
    error_code(body).is_some_and(|code| code == "PermissionDenied")
}

/// The code of an error in OpenAI's shape, where the body is one and has it.
pub fn error_code(body: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        error: Error<'a>,
    }
    #[derive(Deserialize)]
    struct Error<'a> {
        #[serde(borrow)]
        code: Cow<'a, str>,
    }
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    Some(body.error.code)
}

/// What an event tells of a stream of which nothing has gone to the client yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// Nothing yet: the stream has been opened, no more.
    Opening,
    /// It is the answer, or an error that is the client's to see.
    Answer,
    /// The deployment itself is at fault: the call can be made elsewhere.
    Fault(MarkReason),
}

/// What an event's data means at the start of a stream.
///
/// Chat streams report a failure of the service as `{"error":{"type":"server_error","code":null,
/// ...}}` (openai-python, `_streaming.py`; go-openai, pull request 396). The responses API has
/// `{"type":"error"}` with the error beside or below it, and `response.failed` (openai-python,
/// `ResponseErrorEvent`, `ResponseFailedEvent`).
///
/// Azure throttles streamed responses under a 200 with a `retry-after`: after `response.created`
/// comes `{"type":"error","error":{"type":"too_many_requests","code":"rate_limit_exceeded"}}`, from
/// a full PTU with the code `rate_limit_reached`; before or after it `response.failed`, whose
/// `error` may be null (recorded in third-party reports, for example earendil-works/pi, issues
/// 6077 and 7983).
///
/// Only words that can't be the client's fault count; any other error goes to the client.
pub fn stream_event(data: &[u8]) -> StreamEvent {
    let Ok(event) = serde_json::from_slice::<Event<'_>>(data) else {
        return StreamEvent::Answer;
    };
    let kind = event.kind.map_or("", word);
    let in_response = event.response.and_then(|response| response.error);
    let beside = (kind == "error").then_some(EventError {
        code: event.code,
        kind: None,
    });
    if let Some(error) = event.error.or(in_response).or(beside) {
        return error
            .fault()
            .map_or(StreamEvent::Answer, StreamEvent::Fault);
    }
    match kind {
        // A failed response without its reason: what comes next tells it, or the stream's end.
        "response.created" | "response.queued" | "response.in_progress" | "response.failed" => {
            StreamEvent::Opening
        }
        // Azure's first chunk of a chat: the prompt's filter results, and no choice yet.
        "" if event.choices.is_some_and(|all| all.is_empty()) && event.usage.is_none() => {
            StreamEvent::Opening
        }
        _ => StreamEvent::Answer,
    }
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<EventError<'a>>,
    #[serde(borrow, default)]
    code: Option<&'a RawValue>,
    #[serde(borrow, default)]
    response: Option<FailedResponse<'a>>,
    #[serde(borrow, default)]
    choices: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct FailedResponse<'a> {
    #[serde(borrow, default)]
    error: Option<EventError<'a>>,
}

#[derive(Deserialize)]
struct EventError<'a> {
    /// A string on Azure, a number elsewhere, or null.
    #[serde(borrow, default)]
    code: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
}

impl EventError<'_> {
    /// The code says it; where it says nothing known, the type.
    fn fault(&self) -> Option<MarkReason> {
        let words = [self.code, self.kind];
        words.into_iter().flatten().find_map(|raw| fault(word(raw)))
    }
}

/// A string without its quotes, or any other value's text.
fn word(raw: &RawValue) -> &str {
    raw.get().trim_matches('"')
}

/// The fault that a code or type names. From azure-facts ("Error bodies"), OpenAI's error-code
/// guide, and `ResponseError` of openai-python; `server_is_overloaded` and `slow_down` are
/// OpenAI's words for a 503.
fn fault(word: &str) -> Option<MarkReason> {
    match word {
        "429"
        | "rate_limit_exceeded"
        | "rate_limit_reached"
        | "RateLimitReached"
        | "too_many_requests"
        | "rate_limit_error"
        | "NoCapacity" => Some(MarkReason::Throttled),
        "408"
        | "500"
        | "502"
        | "503"
        | "504"
        | "server_error"
        | "internal_server_error"
        | "InternalServerError"
        | "service_unavailable_error"
        | "ServiceUnavailable"
        | "server_is_overloaded"
        | "slow_down" => Some(MarkReason::Failed),
        _ => None,
    }
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
    fn what_another_deployment_may_not_refuse() {
        for (body, expected) in [
            (
                r#"{"error":{"code":"invalid_encrypted_content","message":"m"}}"#,
                Some(OwnRefusal::EncryptedContent),
            ),
            (
                r#"{"error":{"code":null,"message":"The encrypted content gAAA could not be verified."}}"#,
                Some(OwnRefusal::EncryptedContent),
            ),
            (
                r#"{"error":{"code":"context_length_exceeded"}}"#,
                Some(OwnRefusal::ContextLength),
            ),
            (r#"{"error":{"code":"content_filter"}}"#, None),
            (r#"{"error":{"code":7}}"#, None),
            ("{", None),
        ] {
            assert_eq!(own_refusal(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn a_denied_action_is_told_from_a_wrong_key() {
        assert!(is_denied_action(
            br#"{"error":{"code":"PermissionDenied","message":"lacks the required data action"}}"#
        ));
        assert!(!is_denied_action(br#"{"error":{"code":"401"}}"#));
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

    fn event(data: &str) -> StreamEvent {
        stream_event(data.as_bytes())
    }

    #[test]
    fn a_fault_of_the_deployment_is_known_in_every_form() {
        const THROTTLED: StreamEvent = StreamEvent::Fault(MarkReason::Throttled);
        const FAILED: StreamEvent = StreamEvent::Fault(MarkReason::Failed);
        for (data, expected) in [
            (r#"{"error":{"code":"429","message":"m"}}"#, THROTTLED),
            (r#"{"error":{"code":429}}"#, THROTTLED),
            (
                r#"{"error":{"type":"rate_limit_error","code":null}}"#,
                THROTTLED,
            ),
            (
                r#"{"error":{"type":"tokens","code":"rate_limit_exceeded"}}"#,
                THROTTLED,
            ),
            (
                r#"{"type":"error","error":{"type":"too_many_requests","code":"rate_limit_reached","headers":{"skip-error-remapping":"true"}},"sequence_number":2}"#,
                THROTTLED,
            ),
            (
                r#"{"type":"error","code":"rate_limit_exceeded","message":"m","param":null}"#,
                THROTTLED,
            ),
            (
                r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded"}}}"#,
                THROTTLED,
            ),
            (
                r#"{"error":{"message":"The server had an error","type":"server_error","param":null,"code":null}}"#,
                FAILED,
            ),
            (r#"{"error":{"code":"500"}}"#, FAILED),
            (r#"{"error":{"code":503}}"#, FAILED),
            (
                r#"{"type":"response.failed","response":{"error":{"code":"server_error"}}}"#,
                FAILED,
            ),
        ] {
            assert_eq!(event(data), expected, "{data}");
        }
    }

    #[test]
    fn an_error_that_may_be_the_clients_goes_to_the_client() {
        for data in [
            r#"{"error":{"code":"content_filter","status":400}}"#,
            r#"{"error":{"code":"context_length_exceeded","type":"invalid_request_error"}}"#,
            r#"{"error":{"code":"insufficient_quota","type":"insufficient_quota"}}"#,
            r#"{"error":{"message":"m"}}"#,
            r#"{"error":"failed"}"#,
            r#"{"type":"error","code":"invalid_prompt"}"#,
            r#"{"type":"error","message":"m"}"#,
            r#"{"type":"response.failed","response":{"error":{"code":"invalid_image"}}}"#,
        ] {
            assert_eq!(event(data), StreamEvent::Answer, "{data}");
        }
    }

    #[test]
    fn what_opens_a_stream_is_told_from_the_answer() {
        for data in [
            r#"{"type":"response.created","response":{"error":null,"output":[]}}"#,
            r#"{"type":"response.queued","response":{}}"#,
            r#"{"type":"response.in_progress"}"#,
            r#"{"type":"response.failed","response":{"error":null}}"#,
            r#"{"choices":[],"prompt_filter_results":[{}],"usage":null}"#,
        ] {
            assert_eq!(event(data), StreamEvent::Opening, "{data}");
        }
        for data in [
            r#"{"type":"response.output_item.added"}"#,
            r#"{"choices":[{"delta":{"role":"assistant"}}]}"#,
            r#"{"choices":[],"usage":{"total_tokens":1}}"#,
            r#"{"type":"transcript.text.delta","delta":"a"}"#,
            "{}",
            "[DONE]",
            "",
        ] {
            assert_eq!(event(data), StreamEvent::Answer, "{data}");
        }
    }

    #[test]
    fn each_kind_of_silence_has_its_word() {
        let all = [
            NoAnswer::Connect,
            NoAnswer::ConnectTimeout,
            NoAnswer::Reset,
            NoAnswer::FirstByteTimeout,
            NoAnswer::Protocol,
            NoAnswer::EmptyStream,
        ];
        let words: std::collections::HashSet<_> = all.iter().map(|e| e.as_str()).collect();
        assert_eq!(words.len(), all.len());
    }
}
