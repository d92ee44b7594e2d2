//! Trying again what may work later.

use std::time::Duration;

use super::worker::Now;
use crate::gateway::time::Timestamp;

/// The first pause and the longest, ms.
const PAUSES_MS: (u64, u64) = (100, 5000);

/// Does `attempt` until it works, its error is not of a passing kind, or it is `end`.
///
/// # Errors
/// The last attempt's.
pub(super) async fn until<T, E, F: Future<Output = Result<T, E>>>(
    now: &Now,
    end: Timestamp,
    may_pass: impl Fn(&E) -> bool,
    attempt: impl Fn() -> F,
) -> Result<T, E> {
    let (mut pause_ms, longest_ms) = PAUSES_MS;
    loop {
        match attempt().await {
            Err(error) if may_pass(&error) && now() < end => {
                let left = end.ms_since(now());
                tokio::time::sleep(Duration::from_millis(pause_ms.min(left))).await;
                pause_ms = (pause_ms * 2).min(longest_ms);
            }
            other => return other,
        }
    }
}
