//! One rate at one instance: a bucket for the long run, a window for the minute.

use super::share::{SLICE_S, SLICES, Share};
use crate::gateway::time::Timestamp;

/// Seconds that a charge stays in the window. One more than a minute, because a charge late in its
/// second must still be there a whole minute later.
const SECONDS: u64 = 61;

/// As [`SECONDS`], for the array.
const SLOTS: usize = 61;

/// One thousandth of a token or request in the bucket's units: the milliseconds of a minute. A rate
/// in thousandths a minute then leaks exactly that many units a millisecond.
const UNITS_PER_THOUSANDTH: u128 = 60_000;

/// Units of one whole token or request.
const UNITS: u128 = 1000 * UNITS_PER_THOUSANDTH;

/// The largest limit that is told apart from none: a million million a minute. Keeps products of
/// two levels within 128 bits.
const MAX_LIMIT: u64 = 1_000_000_000_000;

/// The time in which refused demand is forgotten, ms.
const REFUSED_FADES_MS: u64 = 10_000;

/// How a limit stands, as a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The whole limit a minute, as configured.
    pub limit: u64,
    /// What would be admitted at once, of the whole limit; 0 when nothing would.
    pub remaining: u64,
    /// Milliseconds until the limit is whole again, when nothing else comes.
    pub reset_ms: u64,
}

/// One rate. Every method but [`Meter::advance`] takes the meter as advanced to now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meter {
    limit: u64,
    /// This instance's part of the limit, thousandths a minute. At least 1, so that every wait ends.
    part: u64,
    /// What was charged and has not leaked yet, in units.
    level: u128,
    /// Charges by second, the second modulo [`SECONDS`].
    seconds: [u64; SLOTS],
    /// Their sum.
    used: u64,
    /// The newest second that was charged.
    newest: u64,
    at: Timestamp,
    /// What was refused lately, fading.
    refused: u64,
}

impl Meter {
    pub(super) fn new(limit: u64, now: Timestamp) -> Self {
        let limit = limit.min(MAX_LIMIT);
        Self {
            limit,
            part: thousandths(limit, Share::WHOLE),
            level: 0,
            seconds: [0; SLOTS],
            used: 0,
            newest: 0,
            at: now,
            refused: 0,
        }
    }

    /// Lets time pass. A clock that went back changes nothing.
    ///
    /// While the window is full the bucket leaks to the point where it is open and no further:
    /// what could not be used is not saved up. Otherwise all callers that the window held back
    /// would come in at once when it opens, and again a minute later.
    pub(super) fn advance(&mut self, now: Timestamp) {
        let mut second = second_of(self.at);
        let last = second_of(now).max(second);
        while self.is_full() && second < last {
            second += 1;
            self.expire(second);
        }
        let opened = if self.is_full() {
            now.max(self.at)
        } else {
            self.at.max(start_of(second))
        };
        self.level = self.level_at_opening(opened);
        self.level = self.level.saturating_sub(self.leaked(now.ms_since(opened)));
        for second in (second + 1).max(last.saturating_sub(SECONDS - 1))..=last {
            self.expire(second);
        }
        self.at = self.at.max(now);
    }

    /// Whether a call is admitted: until a limit is reached, as with Azure, so the last call
    /// admitted may go beyond it. That is a debt which later calls wait for.
    pub(super) fn is_open(&self) -> bool {
        !self.is_full() && self.level < self.brim()
    }

    /// Milliseconds from `now` until a call is admitted, when nothing else comes.
    pub(super) fn opens_in(&self, now: Timestamp) -> u64 {
        let over = self.level.saturating_add(1).saturating_sub(self.brim());
        let paid = self.at.plus_ms(self.ms_to_leak(over));
        paid.max(self.window_opens()).ms_since(now)
    }

    /// Counts `amount`, however much there is room for.
    pub(super) fn charge(&mut self, amount: u64) {
        let second = second_of(self.at);
        let amount = amount.min(u64::MAX - self.used);
        if let Some(slot) = self.slot(second) {
            *slot += amount;
        }
        self.used += amount;
        self.newest = second;
        self.level = self.level.saturating_add(u128::from(amount) * UNITS);
    }

    /// Takes back `amount` that was charged at `charged`. What has left the window since can no
    /// longer be used in its minute.
    pub(super) fn refund(&mut self, amount: u64, charged: Timestamp) {
        self.level = self.level.saturating_sub(u128::from(amount) * UNITS);
        let second = second_of(charged);
        if second_of(self.at).saturating_sub(second) >= SECONDS {
            return;
        }
        if let Some(slot) = self.slot(second) {
            let back = amount.min(*slot);
            *slot -= back;
            self.used -= back;
        }
    }

    /// The most that one estimate counts: a minute's limit. An app that asks for more output than
    /// it may have in a minute then waits a minute for it, not an hour.
    pub(super) fn at_most(&self, estimate: u64) -> u64 {
        estimate.min(self.limit)
    }

    /// The whole limit a minute, as configured.
    pub(super) const fn limit(&self) -> u64 {
        self.limit
    }

    /// Notes demand that was turned away.
    pub(super) fn refuse(&mut self, amount: u64) {
        self.refused = self.refused.saturating_add(amount).min(self.limit);
    }

    /// What was used in the last minute, and what of that is still there after one slice of time,
    /// two, and so on; of the whole limit.
    pub(super) fn used(&self) -> [Share; SLICES] {
        let now = second_of(self.at);
        let mut left = self.used;
        let mut second = now;
        std::array::from_fn(|_| {
            let share = Share::of(left, self.limit);
            for _ in 0..SLICE_S {
                second += 1;
                left = left.saturating_sub(self.leaving(second));
            }
            share
        })
    }

    /// What was used in the last minute or refused lately. `elapsed_ms` is the time since it was
    /// last asked.
    pub(super) fn wanted(&mut self, elapsed_ms: u64) -> Share {
        let wanted = Share::of(self.used.saturating_add(self.refused), self.limit);
        let faded = u128::from(self.refused) * u128::from(REFUSED_FADES_MS)
            / u128::from(REFUSED_FADES_MS.saturating_add(elapsed_ms));
        self.refused = u64::try_from(faded).unwrap_or(u64::MAX);
        wanted
    }

    /// Sets the whole limit; [`Self::set_share`] has to follow.
    pub(super) const fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Sets this instance's part. A larger one is room at once. With a smaller one the bucket is as
    /// full as it was in proportion, and a debt as large.
    pub(super) fn set_share(&mut self, share: Share) {
        let (before, brim) = (self.part, self.brim());
        self.part = thousandths(self.limit, share);
        if self.part < before {
            self.level = match self.level.checked_sub(brim) {
                Some(debt) => self.brim().saturating_add(debt),
                None => self.level * u128::from(self.part) / u128::from(before),
            };
        }
    }

    pub(super) fn reading(&self, now: Timestamp) -> Reading {
        let window = u128::from(self.part).saturating_sub(u128::from(self.used) * 1000);
        let bucket = self.brim().saturating_sub(self.level);
        let room = bucket.min(window * UNITS_PER_THOUSANDTH);
        // Rounded up: a call is admitted while there is any room.
        let remaining = (u128::from(self.limit) * room).div_ceil(self.brim());
        let opens = self.window_opens();
        let leaked = opens.plus_ms(self.ms_to_leak(self.level_at_opening(opens)));
        let empty = match self.used {
            0 => self.at,
            _ => start_of(self.newest + SECONDS),
        };
        Reading {
            limit: self.limit,
            remaining: u64::try_from(remaining).unwrap_or(u64::MAX),
            reset_ms: leaked.max(empty).ms_since(now),
        }
    }

    fn is_full(&self) -> bool {
        u128::from(self.used) * 1000 >= u128::from(self.part)
    }

    /// When the window has room, when nothing else comes.
    fn window_opens(&self) -> Timestamp {
        if !self.is_full() {
            return self.at;
        }
        let mut used = self.used;
        let now = second_of(self.at);
        for second in now + 1..=now + SECONDS {
            used = used.saturating_sub(self.leaving(second));
            if u128::from(used) * 1000 < u128::from(self.part) {
                return start_of(second);
            }
        }
        start_of(now + SECONDS)
    }

    /// The level at the moment when the window opens, which is now if it is open.
    fn level_at_opening(&self, opened: Timestamp) -> u128 {
        let just_open = self.level.min(self.brim() - 1);
        let leaked = self.leaked(opened.ms_since(self.at));
        self.level.saturating_sub(leaked).max(just_open)
    }

    fn brim(&self) -> u128 {
        u128::from(self.part) * UNITS_PER_THOUSANDTH
    }

    fn leaked(&self, ms: u64) -> u128 {
        u128::from(self.part) * u128::from(ms)
    }

    fn ms_to_leak(&self, units: u128) -> u64 {
        u64::try_from(units.div_ceil(u128::from(self.part))).unwrap_or(u64::MAX)
    }

    /// `second` begins: what was charged [`SECONDS`] before it leaves the window.
    fn expire(&mut self, second: u64) {
        if let Some(slot) = self.slot(second) {
            let gone = std::mem::take(slot);
            self.used -= gone;
        }
    }

    /// What leaves the window when `second` begins, which is to come.
    fn leaving(&self, second: u64) -> u64 {
        let slot = index(second).and_then(|index| self.seconds.get(index));
        slot.copied().unwrap_or_default()
    }

    fn slot(&mut self, second: u64) -> Option<&mut u64> {
        index(second).and_then(|index| self.seconds.get_mut(index))
    }
}

fn index(second: u64) -> Option<usize> {
    usize::try_from(second % SECONDS).ok()
}

const fn second_of(at: Timestamp) -> u64 {
    at.unix_ms() / 1000
}

const fn start_of(second: u64) -> Timestamp {
    Timestamp::from_unix_ms(second.saturating_mul(1000))
}

/// `share` of `limit`, in thousandths.
fn thousandths(limit: u64, share: Share) -> u64 {
    let part = u128::from(limit) * u128::from(share.millionths()) / 1000;
    u64::try_from(part).unwrap_or(u64::MAX).max(1)
}
