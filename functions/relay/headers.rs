//! Which headers pass, in both directions, and what an answer's say of its body.

use std::borrow::Cow;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use crate::gateway::retry_after::Headers;
use crate::gateway::spillover;

/// The answer's headers, for reading Retry-After.
pub(super) struct AnswerHeaders<'a>(pub(super) &'a HeaderMap);

impl Headers for AnswerHeaders<'_> {
    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        self.0.get(name)?.to_str().ok().map(Cow::Borrowed)
    }
}

/// Headers of one connection only (RFC 9110, section 7.6.1).
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// What a backend never sees: the client's credentials, and what the hops before the gateway
/// added. (`content-length` and `host` are set anew; `accept-encoding` so that usage can be read.)
fn is_private(name: &str) -> bool {
    const PREFIXES: [&str; 11] = [
        "x-forwarded-",
        // Who App Service's own authentication found the client to be, and that person's tokens.
        "x-ms-client-principal",
        "x-ms-token-",
        "x-original-",
        "x-azure-",
        "x-arr-",
        "x-waws-",
        "x-site-",
        "x-appservice-",
        "x-spillway-",
        "x-client-",
    ];
    matches!(
        name,
        "host"
            | "content-length"
            | "accept-encoding"
            | "expect"
            | "authorization"
            | "api-key"
            | "ocp-apim-subscription-key"
            | "x-functions-key"
            | "x-ms-invocation-id"
            // The gateway's to say: no app may claim to be called by somebody.
            | "caller-objectid"
            | "cookie"
            | "forwarded"
            | "client-ip"
            | "disguised-host"
            | "max-forwards"
            | "x-real-ip"
            // What some servers take for the call's path or method in place of its own.
            | "x-rewrite-url"
            | "x-http-method"
            | "x-http-method-override"
            | "x-method-override"
            | spillover::ASKS
    ) || name.starts_with("was-")
        || begins_with_one_of(name, &PREFIXES)
}

/// What a client never sees of a backend: its cookies and its infrastructure.
fn is_infrastructure(name: &str) -> bool {
    const PREFIXES: [&str; 5] = [
        "x-envoy-",
        "x-aspnet",
        "x-azure-ref",
        "x-cache",
        "x-spillway-",
    ];
    matches!(
        name,
        "set-cookie"
            | "server"
            | "x-powered-by"
            | "via"
            | "alt-svc"
            | "nel"
            | "report-to"
            | "strict-transport-security"
            | "azureml-model-session"
    ) || begins_with_one_of(name, &PREFIXES)
}

/// Whether the name begins with one of these, all of which begin with `x-`.
fn begins_with_one_of(name: &str, prefixes: &[&str]) -> bool {
    name.starts_with("x-") && prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// A backend's headers as the client gets them. The body's length stays only where the body does.
///
/// The map itself goes on, without what stops here: a copy costs two allocations a header whose name
/// is no standard one, and most pass.
pub(super) fn to_client(mut backend: HeaderMap, same_body: bool) -> HeaderMap {
    let stops = |name: &&HeaderName| {
        let name = name.as_str();
        is_hop_by_hop(name) || is_infrastructure(name) || (!same_body && name == "content-length")
    };
    let names = backend.keys().filter(stops).cloned();
    let names: Vec<HeaderName> = names.chain(named_by_connection(&backend)).collect();
    for name in names {
        backend.remove(name);
    }
    backend
}

/// The client's headers as a backend gets them. They are copied: the next attempt needs them too.
pub(super) fn to_backend(client: &HeaderMap) -> HeaderMap {
    // Room for what is set anew: the credential, the host and what codings are taken.
    let mut headers = HeaderMap::with_capacity(client.len() + 6);
    for (name, value) in client {
        if !is_hop_by_hop(name.as_str()) && !is_private(name.as_str()) {
            headers.append(name.clone(), value.clone());
        }
    }
    for name in named_by_connection(client) {
        headers.remove(name);
    }
    headers
}

/// Further headers that are of one hop only: those that `Connection` names.
fn named_by_connection(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let values = headers.get_all(http::header::CONNECTION).into_iter();
    let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
}

/// Headers that say a URL.
const LOCATIONS: [&str; 4] = [
    "location",
    "content-location",
    "operation-location",
    "azure-asyncoperation",
];

/// Takes the backend's own `host` out of the URLs in an answer's headers: what is left is a path, and
/// the gateway serves it. URLs of other hosts stay as they are.
pub(super) fn hide_host(headers: &mut HeaderMap, host: &HeaderValue) {
    for name in LOCATIONS {
        if let Some(value) = headers.get_mut(name)
            && let Some(path) = own_path(value.as_bytes(), host.as_bytes())
        {
            *value = path;
        }
    }
}

/// The path of a URL of `host`; `None` where it is one of another host, or a path already.
fn own_path(url: &[u8], host: &[u8]) -> Option<HeaderValue> {
    let slashes = memchr::memmem::find(url, b"//")?;
    let scheme = url.get(..slashes)?;
    let is_web = [b"".as_slice(), b"http:", b"https:"]
        .iter()
        .any(|one| one.eq_ignore_ascii_case(scheme));
    let rest = url.get(slashes + 2..)?;
    let end = rest.iter().position(|byte| b"/?#".contains(byte));
    let (authority, path) = rest.split_at_checked(end.unwrap_or(rest.len()))?;
    let is_own = is_web && without_port(authority).eq_ignore_ascii_case(without_port(host));
    let path = if path.starts_with(b"/") { path } else { b"/" };
    HeaderValue::from_bytes(path).ok().filter(|_| is_own)
}

/// An authority without the port that is its scheme's anyway.
fn without_port(authority: &[u8]) -> &[u8] {
    let secure = authority.strip_suffix(b":443");
    let plain = || authority.strip_suffix(b":80");
    secure.or_else(plain).unwrap_or(authority)
}

/// Whether an answer is a stream of events that can be read.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    is_plain(headers, "text/event-stream")
}

/// Whether an answer's body is of the media type `name` and not compressed.
pub(super) fn is_plain(headers: &HeaderMap, name: &str) -> bool {
    let plain = headers
        .get(CONTENT_ENCODING)
        .is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let start = kind.and_then(|kind| kind.trim_start().get(..name.len()));
    plain && start.is_some_and(|start| start.eq_ignore_ascii_case(name))
}

/// Sets a header to a text; a text that is no header value is left out. One that is given away is not
/// copied.
pub(super) fn set(headers: &mut HeaderMap, name: &'static str, value: impl TryInto<HeaderValue>) {
    if let Ok(value) = value.try_into() {
        headers.insert(HeaderName::from_static(name), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn names(map: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn credentials_and_hops_never_reach_a_backend() {
        let client = map(&[
            ("host", "a"),
            ("connection", "keep-alive, X-Mine"),
            ("x-mine", "1"),
            ("authorization", "Bearer x"),
            ("api-key", "x"),
            ("ocp-apim-subscription-key", "x"),
            ("x-functions-key", "x"),
            ("caller-objectid", "x"),
            ("x-ms-spillover-deployment", "x"),
            ("cookie", "x"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-azure-functions-invocationid", "x"),
            ("accept-encoding", "gzip"),
            ("x-rewrite-url", "/openai/files"),
            ("x-http-method-override", "DELETE"),
            ("x-ms-client-principal-name", "somebody"),
            ("x-ms-token-aad-access-token", "x"),
            ("content-type", "application/json"),
            ("traceparent", "00-a-b-01"),
            ("x-ms-client-request-id", "1"),
            ("user-agent", "me"),
        ]);
        assert_eq!(
            names(&to_backend(&client)),
            [
                "content-type",
                "traceparent",
                "user-agent",
                "x-ms-client-request-id"
            ]
        );
    }

    #[test]
    fn a_backends_own_host_is_taken_out_of_urls() {
        for (url, expected) in [
            (
                "https://res.openai.azure.com/openai/operations/1?a=b",
                "/openai/operations/1?a=b",
            ),
            ("HTTPS://RES.openai.azure.com:443/x", "/x"),
            ("//res.openai.azure.com/x", "/x"),
            ("https://res.openai.azure.com", "/"),
            ("https://res.openai.azure.com?x", "/"),
            ("/openai/operations/1", "/openai/operations/1"),
            ("/x//res.openai.azure.com/y", "/x//res.openai.azure.com/y"),
            (
                "https://res.openai.azure.com.evil.example/x",
                "https://res.openai.azure.com.evil.example/x",
            ),
            ("https://me@other.example/x", "https://me@other.example/x"),
            ("https://", "https://"),
            ("", ""),
        ] {
            for name in LOCATIONS {
                let mut headers = map(&[(name, url)]);
                hide_host(
                    &mut headers,
                    &HeaderValue::from_static("res.openai.azure.com"),
                );
                assert_eq!(headers[name], expected, "{url}");
            }
        }
    }

    #[test]
    fn limits_and_ids_reach_the_client_and_infrastructure_does_not() {
        let backend = map(&[
            ("set-cookie", "x"),
            ("server", "x"),
            ("x-envoy-upstream-service-time", "3"),
            ("transfer-encoding", "chunked"),
            ("strict-transport-security", "x"),
            ("x-ratelimit-remaining-tokens", "9"),
            ("retry-after-ms", "9"),
            ("x-ms-region", "Sweden Central"),
            ("apim-request-id", "x"),
            ("content-length", "3"),
        ]);
        assert_eq!(
            names(&to_client(backend.clone(), false)),
            [
                "apim-request-id",
                "retry-after-ms",
                "x-ms-region",
                "x-ratelimit-remaining-tokens"
            ]
        );
        assert!(to_client(backend, true).contains_key("content-length"));
    }
}
