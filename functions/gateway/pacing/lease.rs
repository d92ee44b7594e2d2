//! Slots as leases: which instance holds which slot, and what an instance does about it.
//!
//! Every slot of a model is a row; who holds it writes its name and an expiry into it and renews
//! that. An instance reads all rows (a [`Board`]), decides with [`decide`], and writes. Each write is
//! made for the version that was read, so that of two that want the same slot one gets it.
//!
//! **Never more than are open.** A slot is taken only by its number: the numbers below what is
//! open, less one for each slot in use above it, which runs on from when more were open. So however
//! many instances decide at once, what they take is within what is open.
//!
//! **Fair.** An instance takes no more than its part of what is open, by max-min: who wants less
//! than an even part leaves the rest to the others. One whose call ends gives its slot back, instead
//! of using it again, where another one waits and has two fewer, or none.
//!
//! **An instance that dies** gives its slots back by their expiry.

use crate::gateway::time::Timestamp;

#[cfg(test)]
mod tests;

/// How long a slot is leased for, ms.
pub const LEASE_MS: u64 = 30_000;

/// A lease is renewed when less than this is left of it, ms: two more tries fit in.
const RENEW_BELOW_MS: u64 = 20_000;

/// A lease is over for others only so long after its expiry, ms: clocks differ.
const SLACK_MS: u64 = 2_000;

/// How long an instance's wish stands, ms: it repeats it while it waits.
pub const WISH_MS: u64 = 6_000;

/// A wish is repeated when less than this is left of it, ms.
const REPEAT_BELOW_MS: u64 = 4_000;

/// A slot that somebody has or had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The slot's number, from 0.
    pub slot: u32,
    /// The instance that holds it; empty: nobody, it was given back.
    pub holder: String,
    /// When it ends unless it is renewed.
    pub expires: Timestamp,
}

impl Lease {
    /// Whether somebody holds the slot.
    pub fn is_held(&self, now: Timestamp) -> bool {
        !self.holder.is_empty() && now < self.expires.plus_ms(SLACK_MS)
    }
}

/// What an instance says of its calls that wait for a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The instance.
    pub instance: String,
    /// Calls that wait.
    pub waiting: u32,
    /// When this is not true any more.
    pub expires: Timestamp,
}

/// All slots of a model, and who wants some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Board {
    /// Slots that were ever held.
    pub leases: Vec<Lease>,
    /// Instances that wait.
    pub wishes: Vec<Wish>,
}

impl Board {
    /// Slots in use.
    pub fn in_use(&self, now: Timestamp) -> u32 {
        count(self.held(now))
    }

    /// Slots that an instance holds.
    pub fn held_by(&self, instance: &str, now: Timestamp) -> u32 {
        count(self.held(now).filter(|lease| lease.holder == instance))
    }

    fn held(&self, now: Timestamp) -> impl Iterator<Item = &Lease> {
        self.leases.iter().filter(move |lease| lease.is_held(now))
    }

    fn is_held(&self, slot: u32, now: Timestamp) -> bool {
        self.held(now).any(|lease| lease.slot == slot)
    }

    /// Numbers below which slots may be taken when `open` are open.
    pub fn usable(&self, open: u32, now: Timestamp) -> u32 {
        let above = count(self.held(now).filter(|lease| lease.slot >= open));
        open.saturating_sub(above)
    }

    fn waiting(&self, now: Timestamp) -> impl Iterator<Item = &Wish> {
        self.wishes
            .iter()
            .filter(move |wish| wish.waiting > 0 && wish.expires > now)
    }

    /// Calls that wait at other instances than this one.
    pub fn waiting_beside(&self, instance: &str, now: Timestamp) -> u32 {
        let others = self.waiting(now).filter(|wish| wish.instance != instance);
        others.fold(0, |sum, wish| sum.saturating_add(wish.waiting))
    }

    /// Whether an instance whose call ends and that holds `held` slots, this one included, should
    /// leave the slot to another one.
    pub fn yields(&self, instance: &str, held: u32, now: Timestamp) -> bool {
        self.waiting(now)
            .filter(|wish| wish.instance != instance)
            .map(|wish| self.held_by(&wish.instance, now))
            .any(|other| held >= other.saturating_add(2) || other == 0)
    }

    /// The slots that an instance which wants `wanted` in all may hold of `open`, rounded up.
    fn part(&self, instance: &str, wanted: u32, open: u32, now: Timestamp) -> u32 {
        let mut demands: Vec<u32> = self
            .waiting(now)
            .filter(|wish| wish.instance != instance)
            .map(|wish| {
                let held = self.held_by(&wish.instance, now);
                held.saturating_add(wish.waiting)
            })
            .collect();
        demands.push(wanted);
        demands.sort_unstable();
        let (mut left, mut instances) = (open, count(demands.iter()));
        for demand in demands {
            if demand > left / instances.max(1) {
                return wanted.min(left.div_ceil(instances.max(1)));
            }
            left = left.saturating_sub(demand);
            instances = instances.saturating_sub(1);
        }
        wanted
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

/// What an instance needs at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Slots that its calls use.
    pub used: Vec<u32>,
    /// Calls that wait for one.
    pub waiting: u32,
    /// Whether it stands back this once: it has just left a slot to another one.
    pub stands_back: bool,
}

/// What an instance does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Slots whose lease it renews.
    pub renew: Vec<u32>,
    /// Slots that are its own and that waiting calls of its can have at once. Their lease is
    /// renewed.
    pub reuse: Vec<u32>,
    /// Slots that it gives back.
    pub release: Vec<u32>,
    /// Free slots that it tries to take.
    pub take: Vec<u32>,
    /// What it says of the calls that will still wait, where that has to be said anew.
    pub wish: Option<u32>,
    /// Slots that it thought its own and that are somebody else's: they ran out.
    pub lost: Vec<u32>,
}

/// Decides for `instance` by the board as it was just read.
pub fn decide(
    instance: &str,
    board: &Board,
    need: &Need,
    open: u32,
    now: Timestamp,
    random: &mut fastrand::Rng,
) -> Decision {
    let mut decision = Decision::default();
    let own = |lease: &&Lease| lease.holder == instance;
    for slot in &need.used {
        let lease = board.leases.iter().find(|lease| lease.slot == *slot);
        match lease.filter(own) {
            Some(lease) if lease.expires.ms_since(now) < RENEW_BELOW_MS => {
                decision.renew.push(*slot);
            }
            Some(_) => {}
            None => decision.lost.push(*slot),
        }
    }
    let usable = board.usable(open, now);
    let mut held = count(need.used.iter()).saturating_sub(count(decision.lost.iter()));
    let mut waiting = need.waiting;
    let idle = board.leases.iter().filter(own);
    let idle: Vec<u32> = idle
        .map(|lease| lease.slot)
        .filter(|slot| !need.used.contains(slot))
        .collect();
    for slot in idle {
        let reused = waiting > 0 && slot < usable && !board.yields(instance, held + 1, now);
        if reused {
            decision.reuse.push(slot);
            waiting -= 1;
            held += 1;
        } else {
            decision.release.push(slot);
        }
    }
    if waiting > 0 && !need.stands_back {
        let part = board.part(instance, held.saturating_add(waiting), open, now);
        let mut free: Vec<u32> = (0..usable)
            .filter(|slot| !board.is_held(*slot, now) && !decision.release.contains(slot))
            .collect();
        random.shuffle(&mut free);
        let most = waiting.min(part.saturating_sub(held));
        free.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        waiting -= count(free.iter());
        decision.take = free;
    }
    decision.wish = wish(instance, board, waiting, now);
    decision
}

/// A wish that has to be written: a new one, one that ends soon, or one that is over.
fn wish(instance: &str, board: &Board, waiting: u32, now: Timestamp) -> Option<u32> {
    let known = board.wishes.iter().find(|wish| wish.instance == instance);
    let stands = known.filter(|wish| wish.waiting > 0 && wish.expires > now);
    match (waiting, stands) {
        (0, None) => None,
        (0, Some(_)) => Some(0),
        (_, Some(wish)) if wish.expires.ms_since(now) >= REPEAT_BELOW_MS => None,
        (waiting, _) => Some(waiting),
    }
}
