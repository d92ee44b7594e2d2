//! Calls that somebody may ask about: failures and slow ones. They are rare, or should be; a flood of
//! them costs a look at two numbers each.

use crate::gateway::event::{Outcome, UsageEvent};

/// A first byte that took so long makes a call slow, ms.
pub const SLOW_MS: u64 = 10_000;

/// Most refusals that are kept between two takings: those with a 429.
const MAX_THROTTLED: usize = 16;

/// Most others.
const MAX_OTHERS: usize = 48;

/// Notable calls.
#[derive(Debug, Default)]
pub struct Notable {
    throttled: Vec<UsageEvent>,
    others: Vec<UsageEvent>,
    /// Calls that found no room.
    pub left_out: u64,
}

impl Notable {
    /// Whether a call failed or was slow. One whose client left is neither, nor is one that the
    /// client got wrong.
    pub const fn is_notable(event: &UsageEvent) -> bool {
        match event.outcome {
            Outcome::Failed => event.status == 429 || event.status >= 500,
            Outcome::Cut => true,
            Outcome::Completed | Outcome::ClientGone => {
                event.status >= 500 || event.status == 429 || event.first_byte_ms >= SLOW_MS
            }
        }
    }

    /// Keeps a copy of a call, where there is room. Refusals have a room of their own, so that a
    /// flood of them hides no failure.
    pub fn offer(&mut self, event: &UsageEvent) {
        let (room, most) = if event.status == 429 {
            (&mut self.throttled, MAX_THROTTLED)
        } else {
            (&mut self.others, MAX_OTHERS)
        };
        if room.len() < most {
            room.push(event.clone());
        } else {
            self.left_out += 1;
        }
    }

    /// Adds those of another shard.
    pub(super) fn merge(&mut self, other: Self) {
        self.throttled.extend(other.throttled);
        self.others.extend(other.others);
        self.left_out += other.left_out;
    }

    pub(super) fn sort(&mut self) {
        self.others.append(&mut self.throttled);
        self.others.sort_by(|a, b| a.id.cmp(&b.id));
    }

    /// The calls.
    pub fn into_events(self) -> impl Iterator<Item = UsageEvent> {
        self.others.into_iter().chain(self.throttled)
    }
}
