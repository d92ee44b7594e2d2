//! The timer of `spillway local`: calls the utilization function every minute as the Functions host does.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::queue::host_form::guid;
use crate::gateway::pacing::window::{MINUTE_MS, Minute};
use crate::gateway::time::Timestamp;
use crate::host::clock::Clock;
use crate::host::invocation::INVOCATION_ID;

/// The function's name.
const FUNCTION: &str = "utilization";

/// The second of the minute at which function.json has it called, ms.
const SECOND_MS: u64 = 20_000;

/// Longest wait for the function: longer than it takes at most.
const PATIENCE: Duration = Duration::from_secs(58);

/// Calls the function of the handler at `address`, every minute, for ever.
pub async fn keep(address: SocketAddr) {
    let (client, clock) = (reqwest::Client::new(), Clock::new());
    let mut last = None;
    loop {
        let due = next(clock.now());
        tokio::time::sleep(due.since(clock.now())).await;
        let call = client
            .post(format!("http://{address}/{FUNCTION}"))
            .header(INVOCATION_ID, guid(fastrand::u128(..)))
            .header("x-azure-functions-hostversion", "0.0.0.0")
            .header("content-type", "application/json; charset=utf-8")
            .timeout(PATIENCE)
            .body(invocation(last, clock.now()).to_string());
        match call.send().await {
            Ok(answer) if answer.status().is_success() => {}
            Ok(answer) => {
                let status = answer.status().as_u16();
                tracing::warn!(status, "the utilization function failed");
            }
            Err(error) => tracing::warn!(%error, "the utilization function was not reached"),
        }
        last = Some(due);
    }
}

/// When the timer is due next.
fn next(now: Timestamp) -> Timestamp {
    let this = Minute::of(now).start().plus_ms(SECOND_MS);
    if this > now {
        this
    } else {
        this.plus_ms(MINUTE_MS)
    }
}

/// What the host invokes a timer's function with.
fn invocation(last: Option<Timestamp>, now: Timestamp) -> Value {
    // What the host says at the first run (functions-host, timer).
    let last = last.map_or_else(
        || "0001-01-01T00:00:00+00:00".to_owned(),
        Timestamp::rfc3339,
    );
    json!({
        "Data": {"timer": {
            "Schedule": {"AdjustForDST": true},
            "ScheduleStatus": {
                "Last": last,
                "Next": next(now).rfc3339(),
                "LastUpdated": last,
            },
            "IsPastDue": false,
        }},
        "Metadata": {"sys": {
            "MethodName": FUNCTION,
            "UtcNow": now.rfc3339(),
            "RandGuid": guid(fastrand::u128(..)),
        }},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::invocation::Invocation;

    #[test]
    fn the_timer_is_due_once_a_minute() {
        let at = |ms| Timestamp::from_unix_ms(MINUTE_MS * 1000 + ms);
        assert_eq!(next(at(0)), at(20_000));
        assert_eq!(next(at(20_000)), at(80_000));
        assert_eq!(next(at(59_999)), at(80_000));
    }

    #[test]
    fn it_is_invoked_in_the_hosts_form() {
        let body = invocation(None, Timestamp::from_unix_ms(0)).to_string();
        let read = Invocation::read(&http::HeaderMap::new(), body.as_bytes()).unwrap();
        let timer = read.object("timer").unwrap();
        let host: Value = serde_json::from_str(include_str!(
            "../../tests/fixtures/functions-host/timer.json"
        ))
        .unwrap();
        let host = host["Data"]["timer"].as_object().unwrap();
        assert!(timer.keys().eq(host.keys()));
    }
}
