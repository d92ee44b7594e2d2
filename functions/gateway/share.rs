//! How instances share a limit: each takes a part, and all parts together are the limit.
//!
//! Every instance keeps a row in the table `instances` and, every few seconds, does one *beat*: it
//! reads all rows, works out its share of each limit with [`beat`], and writes its own row. A row
//! says of each limit what the instance wants and what it *holds*. No instance leads, and none
//! speaks to another.
//!
//! **Which part.** What instances want, they get, with a quarter to spare; what nobody wants is
//! shared evenly. When they want more than there is, a twentieth is shared evenly (so that an
//! idle instance can take a first call and be seen to want more) and the rest in proportion to
//! what they want. An instance wants what it used in the last minute and what it refused in the
//! last seconds. While every other instance has nine tenths of its part, none gives any up: what
//! is wanted differs a little from beat to beat, and a part that moves is of no use on the way.
//!
//! **When.** An instance gives up at once what another needs, and takes only what no other holds.
//! It holds its share, or what it has used in the last minute where that is more: calls that
//! were admitted half a minute ago count in this minute, whoever serves the next. So a part moves
//! as fast as the minute passes, and the sum stays within the limit while it does. An instance
//! that is no longer heard of holds what it had used until that has left the minute.
//!
//! **What can go wrong.** An instance may always have its part of the even twentieth, so the sum may
//! be 1.05 of the limit while instances come. What an instance does between its last row and its
//! end is guessed. Two that take what a third gave up, before either's row is there, may take it
//! twice until the next beat. An instance that reaches the table no more keeps its share, and the
//! others take that too when its row has expired; when none reaches the table, each keeps its
//! share and the sum stays right.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::limit::{LimitId, Measured, SLICE_S, SLICES, Share, WINDOW_MS};
use super::time::Timestamp;

#[cfg(test)]
mod tests;

/// The share to begin with, before the rows have been read. An instance that can't read them goes
/// on with [`Share::WHOLE`]: a limit that is exceeded is better than an app that is shut out.
pub const UNKNOWN: Share = Share::of_millionths(20_000);

/// What is shared evenly whoever wants more, millionths.
const FLOOR: u64 = 50_000;

/// All of a limit, millionths.
const WHOLE: u64 = 1_000_000;

/// Time from beat to beat where there are few instances, ms.
const INTERVAL_MS: u64 = 2_000;

/// The same, however many there are.
const LONGEST_INTERVAL_MS: u64 = 30_000;

/// Rows that all instances together read in a second at most; the interval is stretched for it. In
/// haste it is twice that: the 2,000 entities a second that a partition of Table Storage serves
/// (Microsoft Learn, "Scalability and performance targets for Table storage").
const ROWS_PER_SECOND: u64 = 1_000;

/// An instance whose share is to change, or whose use has changed, beats so many times as often.
const HASTE: u64 = 2;

/// A change that is worth haste, millionths.
const NOTICEABLE: u64 = 20_000;

/// Beats that an instance may miss before its row expires.
const MISSED_BEATS: u64 = 3;

/// What a slow answer of the table may add to that, ms.
const SLOW_TABLE_MS: u64 = 1_000;

/// Age at which a row may be deleted, ms.
const FORGOTTEN_MS: u64 = 10 * 60_000;

/// What an instance says of one limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claim {
    /// What it wants of the limit.
    pub wanted: Share,
    /// What it holds: nobody else may use it.
    pub held: Share,
    /// What it uses, and what of that will still count after one slice of time, two, ...: for when
    /// it is gone.
    pub used: [Share; SLICES],
}

/// An instance's row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// The instance's id.
    pub instance: String,
    /// When it was written. Where the table keeps that itself, its time is the better one: an
    /// instance's clock that is wrong by seconds makes its row expire too soon or too late.
    pub seen: Timestamp,
    /// Milliseconds after which it is to be written anew.
    pub next_ms: u64,
    /// Its claims, by [`LimitId`] in its written form.
    pub limits: BTreeMap<String, Claim>,
}

/// What an instance does at a beat, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// First: shares that become smaller.
    pub lowered: Vec<(LimitId, Share)>,
    /// Second: the row to write.
    pub row: Row,
    /// Third, and only when the row was written: shares that become larger.
    pub raised: Vec<(LimitId, Share)>,
    /// Rows that nobody needs any more; whoever likes may delete them.
    pub forgotten: Vec<String>,
    /// Instances that share the limits, this one included.
    pub instances: usize,
    /// Milliseconds to the next beat.
    pub next_ms: u64,
}

/// Works out this instance's shares from the rows just read and its own measurements.
///
/// To be called only after the rows were read: old rows look like instances that are gone. When
/// they can't be read, the shares stay as they are.
pub fn beat(
    instance: &str,
    rows: &[Row],
    measured: &[(LimitId, Measured)],
    now: Timestamp,
) -> Beat {
    let others = Others::among(rows, instance, now);
    let own = rows.iter().find(|row| row.instance == instance);
    let forgotten = rows
        .iter()
        .filter(|row| now.ms_since(row.seen) > FORGOTTEN_MS);
    let mut beat = Beat {
        instances: others.live.len() + 1,
        forgotten: forgotten.map(|row| row.instance.clone()).collect(),
        ..Beat::default()
    };
    let mut hurries = false;
    for (limit, measured) in measured {
        let name = limit.to_string();
        let known = own.and_then(|row| row.limits.get(&name)).copied();
        // What the others know of this instance, so that all work with the same figures.
        let wanted = known.map_or(measured.wanted, |claim| claim.wanted);
        let (share, target) = others.share(&name, wanted, measured.share);
        let used = now_of(measured.used);
        hurries |= used > share
            || differs(share, target)
            || differs(share, measured.share)
            || differs(used, now_of(known.unwrap_or_default().used));
        let claim = Claim {
            wanted: measured.wanted,
            held: share.max(used),
            used: measured.used,
        };
        beat.row.limits.insert(name, claim);
        match share.cmp(&measured.share) {
            Ordering::Less => beat.lowered.push((limit.clone(), share)),
            Ordering::Equal => {}
            Ordering::Greater => beat.raised.push((limit.clone(), share)),
        }
    }
    let haste = if hurries { HASTE } else { 1 };
    beat.next_ms = interval_ms(beat.instances) / haste;
    beat.row.next_ms = beat.next_ms;
    beat.row.seen = now;
    instance.clone_into(&mut beat.row.instance);
    beat
}

/// Milliseconds from beat to beat with so many instances. Each reads every row, so with many they
/// beat more slowly.
pub fn interval_ms(instances: usize) -> u64 {
    let instances = u64::try_from(instances).unwrap_or(u64::MAX);
    let rows = instances.saturating_mul(instances);
    let stretched = rows.saturating_mul(1000) / ROWS_PER_SECOND;
    stretched.clamp(INTERVAL_MS, LONGEST_INTERVAL_MS)
}

/// The other instances' rows.
struct Others<'a> {
    live: Vec<&'a Row>,
    gone: Vec<&'a Row>,
    now: Timestamp,
}

impl<'a> Others<'a> {
    fn among(rows: &'a [Row], instance: &str, now: Timestamp) -> Self {
        let others = rows.iter().filter(|row| row.instance != instance);
        let (live, gone) = others.partition(|row| {
            now.ms_since(row.seen) <= promised_ms(row) * MISSED_BEATS + SLOW_TABLE_MS
        });
        Self { live, gone, now }
    }

    /// What an instance that is gone still holds, in millionths: what it had used and has not left
    /// the minute; and what it may have used until it would have written its next row, in room
    /// that it had or that became free. Of that it will have taken at once what it wanted, the
    /// rest bit by bit.
    fn left(&self, row: &Row, claim: Claim) -> u64 {
        let age = self.now.ms_since(row.seen);
        let next = promised_ms(row);
        let until = WINDOW_MS + next;
        let left_ms = until.saturating_sub(age);
        if left_ms == 0 {
            return 0;
        }
        let kept = used_after(claim.used, next);
        let room = wide(claim.held).saturating_sub(kept);
        let taken = wide(claim.wanted).saturating_sub(kept).min(room);
        let rest = (room - taken) * left_ms / until;
        used_after(claim.used, age.max(next)) + taken + rest
    }

    /// This instance's share of the limit `name`, of which it has `share` and wants `wanted`; and
    /// the share that it should have.
    fn share(&self, name: &str, wanted: Share, share: Share) -> (Share, Share) {
        let claim = |row: &Row| row.limits.get(name).copied().unwrap_or_default();
        let live = || self.live.iter().map(|row| claim(row));
        let needs = need(wanted) + live().map(|claim| need(claim.wanted)).sum::<u64>();
        let held: u64 = live().map(|claim| wide(claim.held)).sum();
        let left: u64 = self.gone.iter().map(|row| self.left(row, claim(row))).sum();
        let free = WHOLE.saturating_sub(held + left);
        let instances = u64::try_from(self.live.len() + 1).unwrap_or(u64::MAX);
        let target_of = |wanted: Share| target(need(wanted), needs, instances);
        let is_short = |claim: Claim| wide(claim.held) * 10 < target_of(claim.wanted) * 9;
        let target = target_of(wanted);
        let kept = if live().any(is_short) { 0 } else { wide(share) };
        let share = target.max(kept).min(free).max(FLOOR / instances);
        (narrow(share), narrow(target))
    }
}

/// The part of an instance that needs `need` of `needs`, all in millionths.
fn target(need: u64, needs: u64, instances: u64) -> u64 {
    let shared_by_need = WHOLE - FLOOR;
    if needs <= shared_by_need {
        need + (WHOLE - needs) / instances
    } else {
        need * shared_by_need / needs + FLOOR / instances
    }
}

/// What is wanted, and a quarter to spare, so that a growing demand is not refused from beat to
/// beat.
fn need(wanted: Share) -> u64 {
    let wanted = wide(wanted);
    (wanted + wanted / 4).min(WHOLE)
}

/// When a row was to be written anew, as far as that is believed.
fn promised_ms(row: &Row) -> u64 {
    row.next_ms.min(LONGEST_INTERVAL_MS)
}

/// What is left after `ms` of what is used, by slices of time; evenly within a slice.
fn used_after(used: [Share; SLICES], ms: u64) -> u64 {
    const SLICE_MS: u64 = SLICE_S * 1000;
    let at = |slice: u64| {
        let slice = usize::try_from(slice).unwrap_or(usize::MAX);
        wide(used.get(slice).copied().unwrap_or_default())
    };
    let (slice, into) = (ms / SLICE_MS, ms % SLICE_MS);
    let gone = at(slice).saturating_sub(at(slice.saturating_add(1)));
    at(slice) - gone * into / SLICE_MS
}

/// Of what is used by slices of time, all.
fn now_of(used: [Share; SLICES]) -> Share {
    let [now, ..] = used;
    now
}

fn differs(a: Share, b: Share) -> bool {
    wide(a).abs_diff(wide(b)) > NOTICEABLE
}

fn narrow(millionths: u64) -> Share {
    Share::from(u32::try_from(millionths).unwrap_or(u32::MAX))
}

fn wide(share: Share) -> u64 {
    u64::from(share.millionths())
}
