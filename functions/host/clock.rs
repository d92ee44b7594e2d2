//! The one clock: wall time at the start, carried on by the monotonic clock, so that a clock that
//! is set back can't make a mark last an hour.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::gateway::time::Timestamp;

/// A clock that never goes back.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    start_ms: u64,
}

impl Clock {
    /// A clock that is right now.
    pub fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let ms = since_epoch.map_or(0, |elapsed| elapsed.as_millis());
        Self {
            start: Instant::now(),
            start_ms: u64::try_from(ms).unwrap_or(u64::MAX),
        }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        let ms = self.start.elapsed().as_millis();
        Timestamp::from_unix_ms(self.start_ms).plus_ms(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
