//! How many slots of a model were in use, over the last half an hour.

use std::collections::VecDeque;

use super::figure::MeanSlots;
use crate::gateway::time::Timestamp;

/// How long is remembered, ms: as long as Azure Monitor's figures are believed.
const REMEMBERED_MS: u64 = 31 * 60_000;

/// Shortest time between two notes, ms.
const STEP_MS: u64 = 2_000;

/// After so long without a note nothing is known, ms.
const GAP_MS: u64 = 60_000;

/// Notes of how many slots were in use.
#[derive(Debug, Default)]
pub struct History(VecDeque<(Timestamp, u32)>);

impl History {
    /// Notes that so many are in use at `now`.
    pub fn note(&mut self, in_use: u32, now: Timestamp) {
        match self.0.back() {
            Some((last, _)) if now.ms_since(*last) < STEP_MS => return,
            _ => self.0.push_back((now, in_use)),
        }
        while let Some((first, _)) = self.0.front()
            && now.ms_since(*first) > REMEMBERED_MS
        {
            self.0.pop_front();
        }
    }

    /// The mean from `from` to `until`; `None` where nobody looked all that time.
    pub fn mean(&self, from: Timestamp, until: Timestamp) -> Option<MeanSlots> {
        let (mut sum, mut known_ms) = (0_u64, 0_u64);
        for (i, (begin, slots)) in self.0.iter().enumerate() {
            // Each note holds until the next one; the last one, for as long as may pass.
            let end = self
                .0
                .get(i + 1)
                .map_or(begin.plus_ms(GAP_MS), |next| next.0);
            let end = end.min(begin.plus_ms(GAP_MS));
            let ms = end.min(until).ms_since((*begin).max(from));
            sum += u64::from(*slots) * ms;
            known_ms += ms;
        }
        // A note that came a moment late is no gap.
        let is_known = known_ms > 0 && known_ms * 10 >= until.ms_since(from) * 9;
        is_known.then(|| MeanSlots(sum.saturating_mul(1_000) / known_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_ms(1_000_000_000_000 + seconds * 1000)
    }

    #[test]
    fn the_mean_goes_by_how_long_slots_were_in_use() {
        let mut history = History::default();
        history.note(4, at(0));
        history.note(8, at(45));
        assert_eq!(history.mean(at(0), at(60)), Some(MeanSlots(5_000)));
        assert_eq!(history.mean(at(50), at(60)), Some(MeanSlots(8_000)));
    }

    #[test]
    fn where_nobody_looked_nothing_is_known() {
        let mut history = History::default();
        assert_eq!(history.mean(at(0), at(60)), None);
        history.note(4, at(0));
        history.note(4, at(600));
        assert_eq!(history.mean(at(0), at(60)), Some(MeanSlots(4_000)));
        assert_eq!(history.mean(at(60), at(120)), None);
        assert_eq!(history.mean(at(30), at(90)), None);
    }

    #[test]
    fn what_is_old_is_forgotten_and_what_comes_fast_is_left_out() {
        let mut history = History::default();
        for ms in 0..4_000 {
            history.note(1, at(0).plus_ms(ms));
        }
        assert_eq!(history.0.len(), 2);
        history.note(2, at(3_600));
        assert_eq!(history.0.len(), 1);
    }
}
