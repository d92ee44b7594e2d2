//! What an estimate is to be multiplied by: learnt from what Azure Monitor says of the same minutes.
//!
//! The estimate counts tokens by a published rate. It differs from Azure's own figure where a call is
//! dearer than its rate (long prompts, images), where Azure counts a call in another minute, and
//! where calls reach the deployment past this gateway. All of that but the last lasts, so that the
//! factor of the minutes seen is good for the next ones.

use crate::gateway::ptu::Utilization;

/// The factor's bounds, thousandths: a deployment that others use beside this gateway, or a model whose
/// rate is wrong, shows as a factor at its bound.
const BOUNDS: (u64, u64) = (500, 2_000);

/// Minutes whose estimate is less tell nothing, tenths of a percent.
const LEAST: u64 = 50;

/// What one more minute weighs against all before: an eighth.
const MINUTES: u64 = 8;

/// A deployment's factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calibration {
    thousandths: u64,
}

impl Default for Calibration {
    /// The estimate as it is.
    fn default() -> Self {
        Self { thousandths: 1_000 }
    }
}

impl Calibration {
    /// The factor of so many thousandths, within its bounds.
    pub fn of_thousandths(thousandths: u64) -> Self {
        Self {
            thousandths: thousandths.clamp(BOUNDS.0, BOUNDS.1),
        }
    }

    /// Thousandths.
    pub const fn thousandths(self) -> u64 {
        self.thousandths
    }

    /// Learns from a minute for which both are known.
    #[must_use]
    pub fn learn(self, estimate: Utilization, truth: Utilization) -> Self {
        if estimate.tenths() < LEAST {
            return self;
        }
        let ratio = truth.tenths().saturating_mul(1_000) / estimate.tenths();
        let ratio = ratio.clamp(BOUNDS.0, BOUNDS.1);
        let sum = self.thousandths * (MINUTES - 1) + ratio;
        // Rounded to the nearest, so that it arrives.
        Self::of_thousandths((sum + MINUTES / 2) / MINUTES)
    }

    /// The estimate, corrected.
    pub fn correct(self, estimate: Utilization) -> Utilization {
        Utilization::of_tenths(estimate.tenths().saturating_mul(self.thousandths) / 1_000)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn percent(percent: u64) -> Utilization {
        Utilization::of_percent(percent)
    }

    #[test]
    fn a_factor_is_learnt_minute_by_minute() {
        let mut factor = Calibration::default();
        assert_eq!(factor.correct(percent(40)), percent(40));
        for _ in 0..60 {
            factor = factor.learn(percent(40), percent(52));
        }
        let corrected = factor.correct(percent(60)).tenths();
        assert!((775..=785).contains(&corrected), "{corrected}");
    }

    #[test]
    fn an_idle_minute_teaches_nothing() {
        let factor = Calibration::default();
        assert_eq!(factor.learn(Utilization::IDLE, percent(90)), factor);
        assert_eq!(
            factor.learn(Utilization::of_tenths(49), percent(90)),
            factor
        );
    }

    proptest! {
        #[test]
        fn whatever_is_seen_the_factor_stays_within_its_bounds(
            minutes in prop::collection::vec((any::<u64>(), any::<u64>()), 0..50)
        ) {
            let of = Utilization::of_tenths;
            let learnt = minutes.iter().fold(Calibration::default(), |factor, (estimate, truth)| {
                factor.learn(of(*estimate), of(*truth))
            });
            prop_assert!((BOUNDS.0..=BOUNDS.1).contains(&learnt.thousandths()));
        }

        #[test]
        fn a_minute_moves_the_factor_towards_what_it_says(from in 500_u64..=2_000, truth in 100_u64..3_000) {
            let before = Calibration::of_thousandths(from);
            let after = before.learn(Utilization::FULL, Utilization::of_tenths(truth));
            let wanted = truth.clamp(BOUNDS.0, BOUNDS.1);
            let distance = |factor: Calibration| factor.thousandths().abs_diff(wanted);
            prop_assert!(distance(after) <= distance(before));
        }
    }
}
