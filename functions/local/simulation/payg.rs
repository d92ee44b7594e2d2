//! Pay-as-you-go rates: tokens and requests a minute, counted when a call arrives.
//!
//! As Azure describes it (Microsoft Learn, "Manage quota"): the estimate of a call, prompt plus
//! `max_tokens`, counts at arrival and is not given back; calls are refused from the moment a limit is
//! reached until the counter starts anew; refused calls count as requests; and requests are also
//! checked in short windows, so that a minute's worth can't come at once.

use std::fmt;

use crate::gateway::time::Timestamp;

const MINUTE_MS: u64 = 60_000;
/// Azure checks requests in windows of 1 or 10 s; the longer is taken here.
const SLICE_MS: u64 = 10_000;
const SLICES: u64 = MINUTE_MS / SLICE_MS;

/// Which rate a call exceeded, in the word of Azure's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rate {
    Tokens,
    Requests,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tokens => "token",
            Self::Requests => "call",
        })
    }
}

/// What is left in this minute, as in the `x-ratelimit-*` headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) limit_tokens: u64,
    pub(super) remaining_tokens: u64,
    pub(super) limit_requests: u64,
    pub(super) remaining_requests: u64,
    /// Whole seconds until both counters start anew.
    pub(super) reset_s: u64,
}

/// The counters of one deployment.
#[derive(Debug)]
pub(super) struct PaygWindows {
    tokens_per_minute: u64,
    requests_per_minute: u64,
    minute: Timestamp,
    tokens: u64,
    requests: u64,
    slice: Timestamp,
    slice_requests: u64,
}

impl PaygWindows {
    pub(super) fn new(tokens_per_minute: u64, requests_per_minute: u64, now: Timestamp) -> Self {
        Self {
            tokens_per_minute,
            requests_per_minute,
            minute: now,
            tokens: 0,
            requests: 0,
            slice: now,
            slice_requests: 0,
        }
    }

    /// Counts a call of `estimate` tokens.
    ///
    /// # Errors
    /// The rate that it exceeds and the ms after which that rate's window starts anew.
    pub(super) fn admit(&mut self, estimate: u64, now: Timestamp) -> Result<(), (Rate, u64)> {
        self.roll(now);
        let over_minute = self.requests >= self.requests_per_minute;
        let over_slice = self.slice_requests >= self.requests_per_minute.div_ceil(SLICES);
        self.requests = self.requests.saturating_add(1);
        self.slice_requests = self.slice_requests.saturating_add(1);
        if over_minute {
            return Err((Rate::Requests, left(self.minute, MINUTE_MS, now)));
        }
        if over_slice {
            return Err((Rate::Requests, left(self.slice, SLICE_MS, now)));
        }
        if self.tokens >= self.tokens_per_minute {
            return Err((Rate::Tokens, left(self.minute, MINUTE_MS, now)));
        }
        self.tokens = self.tokens.saturating_add(estimate);
        Ok(())
    }

    pub(super) fn standing(&mut self, now: Timestamp) -> Standing {
        self.roll(now);
        Standing {
            limit_tokens: self.tokens_per_minute,
            remaining_tokens: self.tokens_per_minute.saturating_sub(self.tokens),
            limit_requests: self.requests_per_minute,
            remaining_requests: self.requests_per_minute.saturating_sub(self.requests),
            reset_s: left(self.minute, MINUTE_MS, now).div_ceil(1000),
        }
    }

    /// A minute starts with the first look after the last one ended.
    fn roll(&mut self, now: Timestamp) {
        if now.ms_since(self.minute) >= MINUTE_MS {
            self.minute = now;
            self.tokens = 0;
            self.requests = 0;
            self.slice = now;
            self.slice_requests = 0;
        }
        if now.ms_since(self.slice) >= SLICE_MS {
            self.slice = now;
            self.slice_requests = 0;
        }
    }
}

/// Milliseconds until a window of `length` that began at `start` is over.
fn left(start: Timestamp, length: u64, now: Timestamp) -> u64 {
    length.saturating_sub(now.ms_since(start))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_unix_ms(ms)
    }

    #[test]
    fn tokens_are_counted_at_arrival_until_the_limit_is_reached() {
        let mut w = PaygWindows::new(100, 600, at(0));
        assert_eq!(w.admit(99, at(0)), Ok(()));
        assert_eq!(w.admit(50, at(1_000)), Ok(()));
        assert_eq!(w.admit(1, at(1_500)), Err((Rate::Tokens, 58_500)));
        assert_eq!(w.standing(at(1_500)).remaining_tokens, 0);
        assert_eq!(w.admit(1, at(60_000)), Ok(()));
        assert_eq!(w.standing(at(60_000)).remaining_tokens, 99);
    }

    #[test]
    fn a_minutes_requests_cannot_come_at_once() {
        let mut w = PaygWindows::new(1_000, 12, at(0));
        assert_eq!(w.admit(1, at(0)), Ok(()));
        assert_eq!(w.admit(1, at(0)), Ok(()));
        assert_eq!(w.admit(1, at(4_000)), Err((Rate::Requests, 6_000)));
        assert_eq!(w.admit(1, at(10_000)), Ok(()));
        // The refused one counted: 12 less 4.
        assert_eq!(w.standing(at(10_000)).remaining_requests, 8);
    }

    #[test]
    fn a_limit_of_zero_admits_nothing() {
        let mut w = PaygWindows::new(0, 60, at(0));
        assert_eq!(w.admit(1, at(0)), Err((Rate::Tokens, 60_000)));
        let mut w = PaygWindows::new(10, 0, at(0));
        assert_eq!(w.admit(1, at(0)), Err((Rate::Requests, 60_000)));
    }

    proptest! {
        #[test]
        fn a_call_that_waits_as_told_is_admitted(
            calls in proptest::collection::vec((0u64..15_000, 0u64..80), 1..80)
        ) {
            let mut w = PaygWindows::new(200, 30, at(0));
            let mut now = at(0);
            for (wait, tokens) in calls {
                now = now.plus_ms(wait);
                // A slice's end may find the minute full: at most one more wait.
                let mut waits = 0;
                while let Err((_, ms)) = w.admit(tokens, now) {
                    prop_assert!(ms > 0 && ms <= MINUTE_MS);
                    now = now.plus_ms(ms);
                    waits += 1;
                    prop_assert!(waits <= 2);
                }
            }
        }
    }
}
