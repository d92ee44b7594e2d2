//! What is known of one provisioned deployment.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::history::History;
use crate::gateway::pacing::calibration::Calibration;
use crate::gateway::pacing::figure::{Figure, MeanSlots, Measured, SlotUse, Source, Warning};
use crate::gateway::pacing::monitor::MonitorMinute;
use crate::gateway::pacing::rule::Pace;
use crate::gateway::pacing::window::{Capacity, Counts, DeploymentId, Minute, Use, newest};
use crate::gateway::ptu::Utilization;
use crate::gateway::time::Timestamp;
use crate::store::utilization::Sheet;

/// Minutes of rows that are read: as long as Azure Monitor's figures are believed.
const MINUTES: u64 = 31;

/// A provisioned deployment.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) id: DeploymentId,
    /// What it does in a minute; `None` where the configuration does not say its PTUs.
    pub(super) capacity: Option<Capacity>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    sheet: Sheet,
    read: Timestamp,
    /// What this instance's own calls were told, not written yet, and when.
    said: Option<(Utilization, Timestamp)>,
    is_told: bool,
}

impl Meter {
    pub(super) fn new(id: DeploymentId, capacity: Option<Capacity>) -> Self {
        Self {
            id,
            capacity,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first minute whose rows matter at `now`.
    pub(super) const fn since(now: Timestamp) -> Minute {
        Minute::of(now).before(MINUTES)
    }

    /// When its rows were read last.
    pub(super) fn read_at(&self) -> Timestamp {
        self.known().read
    }

    /// Takes in the rows as they were read.
    pub(super) fn saw(&self, sheet: Sheet, now: Timestamp) {
        let mut known = self.known();
        (known.sheet, known.read) = (sheet, now);
    }

    /// Notes what an answer said.
    pub(super) fn was_said(&self, said: Utilization, now: Timestamp) {
        let mut known = self.known();
        // The highest of the time between two writes.
        let before = known.said.filter(|_| !known.is_told);
        known.said = Some((before.map_or(said, |(before, _)| before.max(said)), now));
        known.is_told = false;
    }

    /// What answers said since this was asked last, and when.
    pub(super) fn to_tell(&self) -> Option<(Utilization, Timestamp)> {
        let mut known = self.known();
        let new = known.said.filter(|_| !known.is_told);
        known.is_told = true;
        new
    }

    /// How full it is, by how many slots are in use.
    pub(super) fn figure(
        &self,
        history: &History,
        in_use: u32,
        pace: &Pace,
        now: Timestamp,
    ) -> Figure {
        let known = self.known();
        let monitor = monitor(&known.sheet, history, in_use);
        let events = self.events(&known.sheet);
        let measured: Vec<Measured> = monitor.into_iter().chain(events).collect();
        let mut warnings = known.sheet.warnings.clone();
        warnings.extend(known.said.map(|(said, seen)| Warning::header(said, seen)));
        Figure::of(&measured, &warnings, self.slot_use(&known.sheet), pace, now)
    }

    fn events(&self, sheet: &Sheet) -> Option<Measured> {
        let capacity = self.capacity?;
        let (from, until, used) = newest(&sheet.counts)?;
        let ms = until.ms_since(from);
        let calibration = calibration(sheet);
        let comes_to = |tokens| calibration.correct(capacity.utilization(tokens, ms));
        Some(Measured {
            source: Source::Events,
            utilization: comes_to(used.all),
            low: Some(comes_to(used.low)),
            from,
            until,
            slots: used.slots(ms),
        })
    }

    /// What one slot adds, by all low-priority calls that the rows tell of.
    fn slot_use(&self, sheet: &Sheet) -> Option<SlotUse> {
        let all = sum(sheet.counts.iter());
        let SlotUse(estimate) = self.capacity?.slot_use(all)?;
        let corrected = calibration(sheet).correct(Utilization::of_tenths(estimate));
        Some(SlotUse(corrected.tenths()))
    }
}

/// The newest that Azure Monitor says. The tokens of the same minute say whose calls made it; where
/// there are none, the slots that were in use then are the only thing known, or those in use now.
fn monitor(sheet: &Sheet, history: &History, in_use: u32) -> Option<Measured> {
    let newest = sheet.monitor.iter().max_by_key(|m| m.minute)?;
    let MonitorMinute {
        minute, average, ..
    } = *newest;
    let (from, until) = (minute.start(), minute.end());
    let used = sum(sheet.counts.iter().filter(|c| c.minute == minute));
    let part = u128::from(average.tenths()) * u128::from(used.low);
    let low = part.checked_div(used.all.into());
    let low = low.map(|low| Utilization::of_tenths(u64::try_from(low).unwrap_or(u64::MAX)));
    let slots = match low {
        Some(_) => used.slots(until.ms_since(from)),
        None => {
            let seen = history.mean(from, until);
            seen.unwrap_or(MeanSlots::of(in_use))
        }
    };
    Some(Measured {
        source: Source::Monitor,
        utilization: average,
        low,
        from,
        until,
        slots,
    })
}

fn calibration(sheet: &Sheet) -> Calibration {
    let current = sheet.current.as_ref();
    current.map_or_else(Calibration::default, |current| current.calibration)
}

fn sum<'a>(counts: impl Iterator<Item = &'a Counts>) -> Use {
    counts.fold(Use::default(), |sum, counts| sum.and(counts.used))
}
