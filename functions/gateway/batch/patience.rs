//! What a message does that can't be answered now: wait, be put off, spill to pay-as-you-go, or
//! give up.
//!
//! Waiting keeps the message: the host renews its lock, up to `maxAutoLockRenewalDuration`. A
//! message that is put off goes back to the end of the queue, so what it waits there has to be
//! counted in: the queue's age.

use crate::gateway::time::Timestamp;

/// What bounds a message's patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Longest that a message is held, ms from its delivery.
    pub hold_ms: u64,
    /// A message may spill when its deadline is nearer than this, ms.
    pub spill_before_ms: u64,
    /// Shortest time that a message is put off for, ms.
    pub defer_ms: u64,
    /// Longest, ms.
    pub max_defer_ms: u64,
}

/// How a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Now.
    pub now: Timestamp,
    /// When it was delivered.
    pub delivered: Timestamp,
    /// Until when an answer is of use.
    pub deadline: Timestamp,
    /// How long messages wait in the queue before they are delivered, ms.
    pub queue_ms: u64,
    /// How often it was put off already.
    pub deferrals: u32,
    /// Whether it may be answered by pay-as-you-go.
    pub may_spill: bool,
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Holds on and asks again after so many ms.
    Wait(u64),
    /// Comes back later.
    Defer(Timestamp),
    /// Is answered by whatever deployment there is.
    Spill,
    /// Tells its sender that it is too late.
    Expire,
}

impl Patience {
    /// What a message does when there is no room for `retry_after_ms`. `random` is from 0 to
    /// 1,000.
    pub fn next(&self, at: Standing, retry_after_ms: u64, random: u64) -> Next {
        if at.now >= at.deadline {
            return Next::Expire;
        }
        let left = at.deadline.ms_since(at.now);
        if at.may_spill && left <= self.spill_before_ms {
            return Next::Spill;
        }
        // Nobody is served better by asking all the time.
        let wait = retry_after_ms.max(100);
        let held = at.now.ms_since(at.delivered);
        // When it may spill it is waited for that moment, not for the deadline.
        let end = if at.may_spill {
            left - self.spill_before_ms
        } else {
            left
        };
        if held.saturating_add(wait) <= self.hold_ms {
            return Next::Wait(wait.min(end).max(1));
        }
        let visible = at
            .now
            .plus_ms(self.deferral_ms(at.deferrals, retry_after_ms, random));
        let served = visible.plus_ms(at.queue_ms);
        if served.ms_since(at.now) < end {
            return Next::Defer(visible);
        }
        if at.may_spill {
            Next::Spill
        } else {
            Next::Expire
        }
    }

    /// How long it is put off: twice as long each time, up to a half more by chance so that
    /// messages that were put off together don't come back together.
    fn deferral_ms(&self, deferrals: u32, retry_after_ms: u64, random: u64) -> u64 {
        let doubled = self.defer_ms.saturating_mul(1 << deferrals.min(10));
        let base = doubled.min(self.max_defer_ms).max(retry_after_ms);
        base.saturating_add(base / 2000 * random.min(1000))
    }
}

/// How long what was delivered says something of the queue, ms. Who holds messages is handed the next
/// one when it is done with one of them, which takes at most as long as a message may be held and
/// called: host.json's maxAutoLockRenewalDuration, 29 minutes. Where none comes for longer, none waits.
const NEWS_MS: u64 = 30 * 60_000;

/// How long messages wait in the queue: a running mean of what those say that come.
///
/// It is the backlog divided by the rate at which it is drained (Little's law), without a right to
/// manage the queue, which counting its messages would take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueAge {
    mean_ms: u64,
    last: Option<Timestamp>,
}

impl QueueAge {
    /// A message was delivered at `at` that had waited so long.
    pub fn saw(&mut self, waited_ms: u64, at: Timestamp) {
        let quiet_ms = self.last.map_or(NEWS_MS, |last| at.ms_since(last));
        // A tenth of the new one: some ten messages say what the queue is like. The longer there was
        // none before it the more, so that a few do after a backlog is gone.
        let parts = (quiet_ms.min(NEWS_MS) * 100 / NEWS_MS).max(10);
        let kept = part(self.mean_ms, 100 - parts);
        self.mean_ms = kept.saturating_add(part(waited_ms, parts));
        self.last = Some(at);
    }

    /// The mean of those that were delivered, however long ago that was, ms.
    pub const fn ms(self) -> u64 {
        self.mean_ms
    }

    /// How long a message would wait that goes to the queue's end now, ms: nothing where none was
    /// delivered lately.
    pub fn wait_ms(self, now: Timestamp) -> u64 {
        let is_news = |last: Timestamp| now.ms_since(last) < NEWS_MS;
        if self.last.is_some_and(is_news) {
            self.mean_ms
        } else {
            0
        }
    }

    /// When a message was delivered last.
    pub const fn last(self) -> Option<Timestamp> {
        self.last
    }
}

/// So many hundredths.
const fn part(ms: u64, hundredths: u64) -> u64 {
    ms / 100 * hundredths + ms % 100 * hundredths / 100
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Patience = Patience {
        hold_ms: 240_000,
        spill_before_ms: 60_000,
        defer_ms: 60_000,
        max_defer_ms: 900_000,
    };

    fn at(s: u64) -> Timestamp {
        Timestamp::from_unix_ms(1_700_000_000_000 + s * 1000)
    }

    fn standing(now_s: u64, deadline_s: u64, may_spill: bool) -> Standing {
        Standing {
            now: at(now_s),
            delivered: at(0),
            deadline: at(deadline_s),
            queue_ms: 0,
            deferrals: 0,
            may_spill,
        }
    }

    #[test]
    fn it_holds_on_for_a_while_and_is_then_put_off() {
        assert_eq!(
            PATIENCE.next(standing(0, 9999, false), 10_000, 0),
            Next::Wait(10_000)
        );
        assert_eq!(
            PATIENCE.next(standing(230, 9999, false), 10_000, 0),
            Next::Wait(10_000)
        );
        assert_eq!(
            PATIENCE.next(standing(231, 9999, false), 10_000, 0),
            Next::Defer(at(291))
        );
        let often = Standing {
            deferrals: 3,
            ..standing(240, 9999, false)
        };
        assert_eq!(PATIENCE.next(often, 1, 0), Next::Defer(at(240 + 480)));
        let very_often = Standing {
            deferrals: 40,
            ..often
        };
        assert_eq!(
            PATIENCE.next(very_often, 1, 1000),
            Next::Defer(at(240 + 1350))
        );
    }

    #[test]
    fn near_its_deadline_it_spills_where_it_may() {
        assert_eq!(PATIENCE.next(standing(0, 60, true), 10_000, 0), Next::Spill);
        assert_eq!(
            PATIENCE.next(standing(0, 65, true), 10_000, 0),
            Next::Wait(5000),
            "up to that moment"
        );
        assert_eq!(
            PATIENCE.next(standing(0, 65, false), 10_000, 0),
            Next::Wait(10_000)
        );
    }

    #[test]
    fn it_is_too_late_when_the_deadline_has_passed_or_would_in_the_queue() {
        assert_eq!(PATIENCE.next(standing(10, 10, true), 1, 0), Next::Expire);
        let full = Standing {
            queue_ms: 7_200_000,
            ..standing(240, 3600, false)
        };
        assert_eq!(PATIENCE.next(full, 1, 0), Next::Expire);
        let richer = Standing {
            may_spill: true,
            ..full
        };
        assert_eq!(PATIENCE.next(richer, 1, 0), Next::Spill);
    }

    #[test]
    fn the_queue_s_age_follows_what_messages_say() {
        let mut age = QueueAge::default();
        age.saw(1000, at(0));
        assert_eq!(age.ms(), 1000);
        (0..100).for_each(|_| age.saw(60_000, at(0)));
        assert!((59_000..=60_000).contains(&age.ms()), "{}", age.ms());
        (0..200).for_each(|_| age.saw(0, at(0)));
        assert!(age.ms() < 100, "{}", age.ms());
    }

    const HOURS_MS: u64 = 5 * 3_600_000;

    /// What was known at the end of a backlog of hours.
    fn backlog() -> QueueAge {
        let mut age = QueueAge::default();
        (0..10).for_each(|s| age.saw(HOURS_MS, at(s)));
        age
    }

    #[test]
    fn a_backlog_that_is_long_gone_makes_no_message_expire_or_spill() {
        let mut age = backlog();
        assert_eq!(age.wait_ms(at(10)), HOURS_MS);
        assert_eq!(age.wait_ms(at(9 + 1799)), HOURS_MS);
        assert_eq!(age.wait_ms(at(9 + 1800)), 0);
        assert_eq!(age.ms(), HOURS_MS, "what was is still told");
        let night = 9 * 3600;
        age.saw(0, at(night));
        assert_eq!(age.wait_ms(at(night)), 0);
        let first = Standing {
            now: at(night + 240),
            delivered: at(night),
            deadline: at(night + 7200),
            queue_ms: age.wait_ms(at(night + 240)),
            deferrals: 0,
            may_spill: true,
        };
        assert_eq!(
            PATIENCE.next(first, 10_000, 0),
            Next::Defer(at(night + 300))
        );
    }

    #[test]
    fn the_fewer_messages_come_the_more_each_says() {
        let mut age = backlog();
        (1..=10).for_each(|i| age.saw(0, at(i * 600)));
        assert!(age.wait_ms(at(6000)) < HOURS_MS / 20, "{}", age.ms());
        let mut busy = backlog();
        busy.saw(0, at(10));
        assert_eq!(busy.ms(), HOURS_MS / 10 * 9);
    }

    #[test]
    fn a_moment_that_nobody_said_breaks_nothing() {
        let mut age = backlog();
        age.saw(u64::MAX, at(0));
        age.saw(u64::MAX, at(90_000));
        assert_eq!(age.ms(), u64::MAX);
        assert_eq!(QueueAge::default().wait_ms(at(0)), 0);
    }

    proptest! {
        #[test]
        fn nothing_is_waited_for_or_put_off_beyond_the_deadline(
            held in 0_u64..600, left in 0_u64..10_000, queue_s in 0_u64..10_000,
            deferrals in 0_u32..50, retry_ms in 0_u64..10_000_000, random in 0_u64..2000, may_spill: bool,
        ) {
            let standing = Standing {
                queue_ms: queue_s * 1000, deferrals, ..standing(held, held + left, may_spill)
            };
            match PATIENCE.next(standing, retry_ms, random) {
                Next::Wait(ms) => {
                    prop_assert!(ms >= 1);
                    prop_assert!(standing.now.plus_ms(ms) <= standing.deadline || ms <= 100.max(retry_ms));
                    prop_assert!(held * 1000 + ms <= PATIENCE.hold_ms);
                }
                Next::Defer(visible) => {
                    prop_assert!(visible > standing.now && visible < standing.deadline);
                }
                Next::Spill => prop_assert!(may_spill && left > 0),
                Next::Expire => prop_assert!(left == 0 || !may_spill),
            }
        }
    }
}
