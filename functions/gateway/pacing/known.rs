//! What is known of a deployment from the rows that tell of it, and the figure that it makes.

use super::calibration::Calibration;
use super::figure::{Figure, MeanSlots, Measured, SlotUse, Source, Warning};
use super::history::History;
use super::monitor::MonitorMinute;
use super::rule::Pace;
use super::window::{Capacity, Counts, Minute, Use, newest};
use crate::gateway::ptu::Utilization;
use crate::gateway::time::Timestamp;

/// Minutes of rows that matter: as long as Azure Monitor's figures are believed.
pub const MINUTES: u64 = 31;

/// What the rows of a deployment say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Azure Monitor's minutes.
    pub monitor: Vec<MonitorMinute>,
    /// Minutes of weighted tokens, one of each instance that counted some.
    pub counts: Vec<Counts>,
    /// What warns, whether or not it still counts.
    pub warnings: Vec<Warning>,
    /// What estimates are multiplied by.
    pub calibration: Calibration,
}

/// What a source says of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// Who says it.
    pub source: Source,
    /// How full the deployment was.
    pub utilization: Utilization,
    /// When: the end of what was measured, when an answer came, or when an alert fired.
    pub at: Timestamp,
    /// Whether it still counts in the figure.
    pub counts: bool,
}

impl Known {
    /// What each source says, of those that say something: of measurements the newest; of warnings the
    /// highest in force, else the newest.
    pub fn said(&self, capacity: Option<Capacity>, now: Timestamp) -> Vec<Said> {
        let monitor = self.by_monitor(&History::default(), 0);
        let events = capacity.and_then(|capacity| self.by_events(capacity));
        let measured = [monitor, events]
            .into_iter()
            .flatten()
            .map(|measured| Said {
                source: measured.source,
                utilization: measured.utilization,
                at: measured.until,
                counts: measured.counts(now),
            });
        let warned = [Source::Header, Source::Alert];
        let warned = warned.into_iter().filter_map(|by| self.warned(by, now));
        measured.chain(warned).collect()
    }

    fn warned(&self, by: Source, now: Timestamp) -> Option<Said> {
        let all = || self.warnings.iter().filter(|warning| warning.source == by);
        let in_force = all().filter(|warning| warning.until > now);
        let highest = in_force.max_by_key(|warning| warning.utilization);
        let shown = highest.or_else(|| all().max_by_key(|warning| warning.since))?;
        Some(Said {
            source: by,
            utilization: shown.utilization,
            at: shown.since,
            counts: highest.is_some(),
        })
    }

    /// How full the deployment is, by how many slots are in use. `capacity` is what its PTUs do, where
    /// that is known; `history` how many slots were in use, and `in_use` how many are.
    pub fn figure(
        &self,
        capacity: Option<Capacity>,
        history: &History,
        in_use: u32,
        pace: &Pace,
        now: Timestamp,
    ) -> Figure {
        let monitor = self.by_monitor(history, in_use);
        let events = capacity.and_then(|capacity| self.by_events(capacity));
        let measured: Vec<Measured> = monitor.into_iter().chain(events).collect();
        let usual = capacity.and_then(|capacity| self.slot_use(capacity));
        Figure::of(&measured, &self.warnings, usual, pace, now)
    }

    /// The newest that Azure Monitor says. The tokens of the same minute say whose calls made it; where
    /// there are none, the slots that were in use then are the only thing known, or those in use now.
    fn by_monitor(&self, history: &History, in_use: u32) -> Option<Measured> {
        let newest = self.monitor.iter().max_by_key(|m| m.minute)?;
        let MonitorMinute {
            minute, average, ..
        } = *newest;
        let (from, until) = (minute.start(), minute.end());
        let used = self.used_in(minute);
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

    fn by_events(&self, capacity: Capacity) -> Option<Measured> {
        let (from, until, used) = newest(&self.counts)?;
        let ms = until.ms_since(from);
        let comes_to = |tokens| self.calibration.correct(capacity.utilization(tokens, ms));
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
    fn slot_use(&self, capacity: Capacity) -> Option<SlotUse> {
        let all = sum(self.counts.iter());
        let SlotUse(estimate) = capacity.slot_use(all)?;
        let corrected = self.calibration.correct(Utilization::of_tenths(estimate));
        Some(SlotUse(corrected.tenths()))
    }

    fn used_in(&self, minute: Minute) -> Use {
        sum(self.counts.iter().filter(|c| c.minute == minute))
    }

    /// The calibration after Azure Monitor's minutes `settled`, learnt from each once: from those after
    /// `learnt` that calls were counted in. And the newest of these.
    pub fn learn(
        &self,
        capacity: Option<Capacity>,
        settled: &[MonitorMinute],
        learnt: Minute,
    ) -> (Calibration, Minute) {
        let (mut calibration, mut newest) = (self.calibration, learnt);
        for truth in settled {
            let used = self.used_in(truth.minute);
            let is_new = truth.minute > newest && used.all > 0;
            let Some(capacity) = capacity.filter(|_| is_new) else {
                continue;
            };
            let ms = truth.minute.end().ms_since(truth.minute.start());
            let estimate = capacity.utilization(used.all, ms);
            calibration = calibration.learn(estimate, truth.average);
            newest = truth.minute;
        }
        (calibration, newest)
    }
}

fn sum<'a>(counts: impl Iterator<Item = &'a Counts>) -> Use {
    counts.fold(Use::default(), |sum, counts| sum.and(counts.used))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: Capacity = Capacity(100_000);
    const START: Timestamp = Timestamp::from_unix_ms(1_795_453_560_000);

    fn counts(minutes: u64, all: u64, low: u64, low_ms: u64) -> Counts {
        let minute = Minute::of(START.plus_ms(minutes * 60_000));
        Counts {
            minute,
            used: Use { all, low, low_ms },
            seen: minute.end(),
        }
    }

    fn monitor(minutes: u64, percent: u64) -> MonitorMinute {
        MonitorMinute {
            minute: Minute::of(START.plus_ms(minutes * 60_000)),
            average: Utilization::of_percent(percent),
            maximum: Utilization::of_percent(percent),
        }
    }

    fn with(known: &Known, slots: u32, now: u64) -> u64 {
        let now = START.plus_ms(now * 60_000);
        let figure = known.figure(Some(CAPACITY), &History::default(), 0, &Pace::DEFAULT, now);
        figure.with(slots).tenths()
    }

    #[test]
    fn what_one_slot_adds_is_seen_from_all_low_priority_calls_of_late() {
        // Two slots for three minutes made 10 % each; in the last one none ran.
        let counts = vec![
            counts(0, 50_000, 20_000, 120_000),
            counts(1, 50_000, 20_000, 120_000),
            counts(2, 30_000, 0, 0),
            counts(3, 30_000, 0, 0),
        ];
        let known = Known {
            counts,
            ..Known::default()
        };
        assert_eq!(with(&known, 0, 4), 300);
        assert_eq!(with(&known, 3, 4), 600);
    }

    #[test]
    fn monitors_minute_is_split_by_the_tokens_of_the_same_minute() {
        let known = Known {
            monitor: vec![monitor(0, 60)],
            counts: vec![counts(0, 40_000, 20_000, 300_000)],
            ..Known::default()
        };
        // 60 % by 5 slots' 30 % and others' 30 %. The window is too old to count for itself.
        assert_eq!(with(&known, 0, 10), 400, "4 % a slot by its tokens");
        assert_eq!(with(&known, 5, 10), 600);
    }

    #[test]
    fn each_source_is_told_with_its_time_and_whether_it_counts() {
        let at = |minutes: u64| START.plus_ms(minutes * 60_000);
        let alert = |percent, fired: u64, until: u64| Warning {
            source: Source::Alert,
            utilization: Utilization::of_percent(percent),
            since: at(fired),
            until: at(until),
        };
        let known = Known {
            monitor: vec![monitor(0, 60), monitor(4, 70)],
            counts: vec![counts(8, 40_000, 0, 0)],
            warnings: vec![
                alert(95, 1, 3),
                alert(91, 5, 30),
                alert(99, 6, 7),
                Warning::header(Utilization::of_percent(80), at(2)),
                Warning::header(Utilization::of_percent(50), at(3)),
            ],
            calibration: Calibration::of_thousandths(1_500),
        };
        let said = |source, percent, minutes, counts| Said {
            source,
            utilization: Utilization::of_percent(percent),
            at: at(minutes),
            counts,
        };
        let expected = [
            said(Source::Monitor, 70, 5, true),
            said(Source::Events, 60, 9, true),
            said(Source::Header, 50, 3, false),
            said(Source::Alert, 91, 5, true),
        ];
        assert_eq!(known.said(Some(CAPACITY), at(10)), expected);
        assert_eq!(Known::default().said(Some(CAPACITY), at(10)), []);
        let later = known.said(None, at(60));
        assert!(
            later
                .iter()
                .all(|said| !said.counts && said.source != Source::Events)
        );
    }

    #[test]
    fn a_factor_is_learnt_from_each_minute_once() {
        let known = Known {
            counts: vec![counts(0, 40_000, 0, 0), counts(1, 40_000, 0, 0)],
            ..Known::default()
        };
        let settled = [monitor(0, 60), monitor(1, 60), monitor(2, 60)];
        let before = Minute::of(Timestamp::default());
        let (calibration, learnt) = known.learn(Some(CAPACITY), &settled, before);
        assert_eq!(learnt, settled[1].minute, "the third has no calls");
        assert!(calibration.thousandths() > 1_000);
        let again = Known {
            calibration,
            ..known
        };
        assert_eq!(
            again.learn(Some(CAPACITY), &settled, learnt),
            (calibration, learnt)
        );
    }
}
