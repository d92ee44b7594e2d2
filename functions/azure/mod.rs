//! Thin clients for Azure's own services.
//!
//! [`entra`] verifies the tokens of callers; [`credential`] and [`own_token`] get the gateway's
//! own for its backends. All of it runs off the request path, in tasks of the accepting thread.
//! [`event_hub`] sends usage events, [`service_bus`] messages; [`monitor`] asks for metrics,
//! [`retail_prices`] for list prices, [`graph`] for applications' names, and [`resources`] reads what is
//! deployed.

pub mod credential;
pub mod entra;
pub mod event_hub;
pub mod graph;
mod jwks;
pub mod monitor;
pub mod own_token;
pub mod resources;
pub mod retail_prices;
pub mod service_bus;
mod verified;

use std::time::Duration;

/// Longest wait for a connection to one of Azure's services.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest that an answer of one may take, whole.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The HTTP client for Azure's services, and for a collector of telemetry. It follows no redirects, as none of them redirects, and
/// uses no proxy: the identity endpoint is on this machine.
///
/// # Errors
/// When the system has no usable certificate roots.
pub fn http_client() -> Result<reqwest::Client, String> {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ANSWER_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("spillway/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| {
            let cause = describe(&error);
            format!("no HTTP client; it needs the system's CA certificates: {cause}")
        })
}

/// Why an answer's body was not read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// It broke off.
    Broken(reqwest::Error),
    /// It is larger than it may be.
    TooLarge,
}

/// An answer's body, of `most` bytes at most.
pub(crate) async fn whole(mut answer: reqwest::Response, most: usize) -> Result<Vec<u8>, Unread> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(Unread::Broken)? {
        if body.len() + chunk.len() > most {
            return Err(Unread::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// An error and what caused it, in one line that is not too long for a log.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut parts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        source = cause.source();
    }
    let line = parts.join(": ").replace(['\n', '\r'], " ");
    line.chars().take(500).collect()
}

/// The pause after so many failures in a row: a second, doubled each time, a minute at most.
fn backoff_ms(failures: u32) -> u64 {
    let doublings = failures.saturating_sub(1).min(6);
    (1000 << doublings).min(60_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute() {
        let pauses: Vec<u64> = (1..9).map(|n| backoff_ms(n) / 1000).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff_ms(u32::MAX), 60_000);
    }

    #[test]
    fn an_error_is_one_line_with_its_causes() {
        let cause = std::io::Error::other("the\ncause");
        assert_eq!(describe(&std::io::Error::other(cause)), "the cause");
        let long = std::io::Error::other("x".repeat(1000));
        assert_eq!(describe(&long).len(), 500);
    }
}
