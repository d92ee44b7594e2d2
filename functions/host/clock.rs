//! The one clock: wall time at the start, carried on by the monotonic clock, so that a clock that
//! is set back can't make a mark last an hour; and kept right, as the monotonic clock stands still while
//! the machine sleeps.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::gateway::time::Timestamp;

/// How often the clock is compared with the system's.
const COMPARED: Duration = Duration::from_secs(10);

/// A difference that is left alone, ms: reading the two takes time as well.
const TOLERANCE_MS: u64 = 500;

/// Most that the clock goes back at once, ms: a tenth of the time since it was compared last, so that what lasts
/// by it lasts at most a tenth longer. (The kernel's `adjtime` slews a clock as well.)
const MOST_BACK_MS: u64 = 1000;

/// The time that all clocks of the process show.
static TIME: LazyLock<Time> = LazyLock::new(|| Time {
    start: Instant::now(),
    start_ms: AtomicU64::new(system_ms()),
});

#[derive(Debug)]
struct Time {
    start: Instant,
    /// When `start` was, by the system's clock as it is known now.
    start_ms: AtomicU64,
}

impl Time {
    fn now_ms(&self) -> u64 {
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.start_ms.load(Relaxed).saturating_add(ms)
    }

    /// Takes what the system's clock shows.
    fn compare(&self, system_ms: u64) {
        let start_ms = self.start_ms.load(Relaxed);
        let to_ms = corrected(start_ms, self.now_ms(), system_ms);
        // Whoever was first has set it as well.
        let _ = (self.start_ms).compare_exchange(start_ms, to_ms, Relaxed, Relaxed);
    }
}

/// When the start was of a clock that shows `now_ms` while the system's shows `system_ms`: it goes on to that at
/// once, and back to it little by little.
fn corrected(start_ms: u64, now_ms: u64, system_ms: u64) -> u64 {
    if now_ms.abs_diff(system_ms) <= TOLERANCE_MS {
        return start_ms;
    }
    match system_ms.checked_sub(now_ms) {
        Some(behind_ms) => {
            tracing::warn!(behind_ms, "the clock stood still, and was set");
            start_ms.saturating_add(behind_ms)
        }
        None => start_ms.saturating_sub((now_ms - system_ms).min(MOST_BACK_MS)),
    }
}

fn system_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since_epoch.map_or(0, |elapsed| elapsed.as_millis());
    u64::try_from(ms).unwrap_or(u64::MAX)
}

/// A clock. All of the process show the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    time: &'static Time,
}

impl Clock {
    /// The process's clock.
    pub fn new() -> Self {
        Self { time: &TIME }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.time.now_ms())
    }

    /// Keeps it right.
    pub async fn keep(self) {
        loop {
            tokio::time::sleep(COMPARED).await;
            self.time.compare(system_ms());
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    #[test]
    fn a_clock_that_stood_still_is_set_at_once() {
        assert_eq!(
            corrected(HOUR_MS, HOUR_MS + 5, 9 * HOUR_MS),
            9 * HOUR_MS - 5
        );
    }

    #[test]
    fn a_clock_that_is_ahead_goes_back_little_by_little() {
        let (mut start_ms, system_ms) = (HOUR_MS, HOUR_MS - 10 * MOST_BACK_MS);
        for step in 1..=10 {
            start_ms = corrected(start_ms, start_ms, system_ms);
            assert_eq!(start_ms, HOUR_MS - step * MOST_BACK_MS);
        }
        assert_eq!(corrected(start_ms, start_ms, system_ms), system_ms);
    }

    #[test]
    fn a_small_difference_is_left_alone() {
        for system_ms in [HOUR_MS - TOLERANCE_MS, HOUR_MS + TOLERANCE_MS] {
            assert_eq!(corrected(HOUR_MS, HOUR_MS, system_ms), HOUR_MS);
        }
    }

    #[test]
    fn a_system_without_a_time_leaves_one() {
        assert_eq!(corrected(0, 5000, 0), 0);
    }

    #[test]
    fn what_the_system_shows_is_taken() {
        let time = Time {
            start: Instant::now(),
            start_ms: AtomicU64::new(HOUR_MS),
        };
        time.compare(9 * HOUR_MS);
        assert!(time.now_ms() >= 9 * HOUR_MS);
    }
}
