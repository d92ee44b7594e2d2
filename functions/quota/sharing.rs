//! This instance's row in table `instances`, and its shares.

use std::sync::Arc;
use std::time::Duration;

use super::Quotas;
use crate::gateway::limit::{LimitId, Measured, Share};
use crate::gateway::share::{beat, interval_ms};
use crate::host::clock::Clock;
use crate::store::{Store, StoreError, instances};

/// Longest wait for the store. An answer that comes later is of no use: rows expire meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// Beats for ever.
pub(super) async fn keep(current: impl Fn() -> Arc<Quotas>, store: &dyn Store, clock: Clock) {
    let instance = format!("{:032x}", fastrand::u128(..));
    let mut state = State::Unread;
    loop {
        let quotas = current();
        if quotas.limits().next().is_none() {
            tokio::time::sleep(Duration::from_millis(interval_ms(1))).await;
            continue;
        }
        let next_ms = match once(&quotas, store, clock, &instance).await {
            Ok(next_ms) => {
                if state == State::Failing {
                    tracing::info!("limits are shared again");
                }
                state = State::Shared;
                next_ms
            }
            Err(error) => {
                if state == State::Unread {
                    // A limit that is exceeded is better than an app that is shut out.
                    quotas.set_all_shares(Share::WHOLE, clock.now());
                }
                if state != State::Failing {
                    tracing::error!(%error, "table instances can't be read or written: shares of limits stay as they are");
                }
                state = State::Failing;
                interval_ms(1)
            }
        };
        tokio::time::sleep(Duration::from_millis(next_ms)).await;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unread,
    Shared,
    Failing,
}

/// One beat; milliseconds to the next.
async fn once(
    quotas: &Quotas,
    store: &dyn Store,
    clock: Clock,
    instance: &str,
) -> Result<u64, StoreError> {
    let rows = in_time(instances::read(store)).await?;
    let now = clock.now();
    let measured: Vec<(LimitId, Measured)> = quotas
        .limits()
        .flat_map(|limits| limits.measure(now))
        .collect();
    let beat = beat(instance, &rows, &measured, now);
    set(quotas, &beat.lowered, clock);
    in_time(instances::write(store, &beat.row)).await?;
    set(quotas, &beat.raised, clock);
    for gone in &beat.forgotten {
        in_time(instances::forget(store, gone)).await?;
    }
    Ok(beat.next_ms)
}

fn set(quotas: &Quotas, shares: &[(LimitId, Share)], clock: Clock) {
    for (id, share) in shares {
        let quota = quotas.apps.get(&id.app);
        if let Some(limits) = quota.and_then(|quota| quota.limits.as_ref()) {
            limits.set_share(id, *share, clock.now());
        }
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    answer.unwrap_or_else(|_| {
        let ms = PATIENCE.as_millis();
        Err(StoreError::Unavailable(format!("no answer within {ms} ms")))
    })
}
