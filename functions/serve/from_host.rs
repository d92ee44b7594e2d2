//! What the Functions host asks for itself, told from what it passes on.

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;

use crate::host::invocation::INVOCATION_ID;
use crate::relay;

/// Lets only the host's own invocations through. The host's proxy passes calls from outside to
/// the same port and path space, always with headers that it sets itself (azure-functions-host,
/// `DefaultHttpProxyService`), so that nobody outside can pose as a trigger.
pub(super) async fn from_the_host(request: Request, next: Next) -> Response {
    if is_invocation(request.headers()) {
        return next.run(request).await;
    }
    relay::no_such_path(request).await
}

fn is_invocation(headers: &HeaderMap) -> bool {
    let is_proxied = PROXIED.iter().any(|name| headers.contains_key(*name));
    !is_proxied && headers.contains_key(INVOCATION_ID)
}

/// What the host's proxy sets on each call that it passes on.
const PROXIED: [&str; 4] = [
    "x-ms-invocation-id",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

/// The host asks `GET /` every 25 ms until anything answers (functions-host, readiness). The
/// same path through the proxy is an app's mistake.
pub(super) async fn ready(request: Request) -> Response {
    if request.headers().contains_key(INVOCATION_ID) {
        return relay::no_such_path(request).await;
    }
    Response::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str) -> HeaderMap {
        let lines = text.lines().filter_map(|line| line.split_once(": "));
        let headers = lines.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        headers.collect()
    }

    #[test]
    fn only_the_host_invokes_a_trigger() {
        let own = include_str!("../../tests/fixtures/functions-host/eventhub_batch3_binary.http");
        assert!(is_invocation(&headers(own)));
        let proxied = include_str!("../../tests/fixtures/functions-host/http_proxied_sse.http");
        assert!(!is_invocation(&headers(proxied)));
        assert!(!is_invocation(&HeaderMap::new()), "nobody else posts there");
        for name in PROXIED {
            let forged = format!("{own}{name}: x\n");
            assert!(
                !is_invocation(&headers(&forged.replace("\n\n", "\n"))),
                "{name}"
            );
        }
    }
}
