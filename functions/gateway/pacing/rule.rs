//! The slot rule: full speed below a lower limit of utilization, slower in between, stopped from an
//! upper limit on. (Microsoft, "Maximise PTU utilization with a GenAI gateway": 10 slots, 20 %, 90 %.)

use crate::gateway::ptu::Utilization;

/// How many low-priority calls of a model may run at once, by utilization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Slots while utilization is at `lower` or below it.
    pub slots: u32,
    /// Up to here all slots are open.
    pub lower: Utilization,
    /// From here on none is. Greater than `lower`.
    pub upper: Utilization,
}

impl Pace {
    /// The seeds' example.
    pub const DEFAULT: Self = Self {
        slots: 10,
        lower: Utilization::of_percent(20),
        upper: Utilization::of_percent(90),
    };

    /// The slots that are open at a utilization: all up to the lower limit, none from the upper one
    /// on, in between `slots * (upper - utilization) / (upper - lower)`, rounded up.
    pub fn open(&self, utilization: Utilization) -> u32 {
        if utilization >= self.upper {
            return 0;
        }
        if utilization <= self.lower {
            return self.slots;
        }
        let room = self.upper.tenths() - utilization.tenths();
        let width = self.upper.tenths() - self.lower.tenths();
        let open = (u64::from(self.slots).saturating_mul(room)).div_ceil(width);
        u32::try_from(open).unwrap_or(self.slots)
    }

    /// The slots that are open where each one in use adds to utilization: so many that the last of
    /// them might still start beside the others. `with` says what utilization is expected with so
    /// many slots in use.
    ///
    /// Without this a figure that is seconds or minutes late would open all slots, see what that
    /// did only when they have filled the deployment, and close all of them again.
    pub fn open_beside(&self, with: impl Fn(u32) -> Utilization) -> u32 {
        (0..self.slots)
            .find(|in_use| self.open(with(*in_use)) <= *in_use)
            .unwrap_or(self.slots)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The seeds' graph, percent by percent: from, to, slots.
    const GRAPH: [(u64, u64, u32); 11] = [
        (0, 26, 10),
        (27, 33, 9),
        (34, 40, 8),
        (41, 47, 7),
        (48, 54, 6),
        (55, 61, 5),
        (62, 68, 4),
        (69, 75, 3),
        (76, 82, 2),
        (83, 89, 1),
        (90, 120, 0),
    ];

    #[test]
    fn ten_slots_between_20_and_90_percent_draw_the_seeds_graph() {
        let mut next = 0;
        for (from, to, slots) in GRAPH {
            assert_eq!(from, next, "no percent is left out");
            for percent in from..=to {
                let open = Pace::DEFAULT.open(Utilization::of_percent(percent));
                assert_eq!(open, slots, "{percent} %");
            }
            next = to + 1;
        }
    }

    #[test]
    fn the_limits_belong_to_the_sides_that_the_rule_says() {
        let pace = Pace::DEFAULT;
        assert_eq!(pace.open(Utilization::of_tenths(200)), 10);
        assert_eq!(pace.open(Utilization::of_tenths(201)), 10, "rounded up");
        assert_eq!(pace.open(Utilization::of_tenths(899)), 1);
        assert_eq!(pace.open(Utilization::of_tenths(900)), 0);
        assert_eq!(pace.open(Utilization::of_tenths(u64::MAX)), 0);
    }

    #[test]
    fn slots_that_fill_the_deployment_themselves_are_fewer() {
        let pace = Pace::DEFAULT;
        let with = |base: u64, each: u64| {
            move |slots: u32| Utilization::of_percent(base + each * u64::from(slots))
        };
        assert_eq!(pace.open_beside(with(0, 0)), 10);
        assert_eq!(pace.open_beside(with(30, 10)), 4);
        assert_eq!(pace.open_beside(with(89, 10)), 1);
        assert_eq!(pace.open_beside(with(90, 10)), 0);
    }

    fn paces() -> impl Strategy<Value = Pace> {
        (1_u32..=1000, 0_u64..1000, 1_u64..=1000).prop_map(|(slots, lower, width)| Pace {
            slots,
            lower: Utilization::of_tenths(lower),
            upper: Utilization::of_tenths(lower + width),
        })
    }

    proptest! {
        #[test]
        fn more_utilization_never_opens_a_slot(pace in paces(), a in 0_u64..2500, b in 0_u64..2500) {
            let (less, more) = (a.min(b), a.max(b));
            let open = |tenths| pace.open(Utilization::of_tenths(tenths));
            prop_assert!(open(less) >= open(more));
            prop_assert!(open(less) <= pace.slots);
            prop_assert_eq!(open(more) == 0, more >= pace.upper.tenths());
        }

        #[test]
        fn beside_others_a_slot_starts_only_where_the_rule_has_one_more(
            pace in paces(), base in 0_u64..1200, each in 0_u64..300
        ) {
            let with = |slots: u32| Utilization::of_tenths(base + each * u64::from(slots));
            let open = pace.open_beside(with);
            prop_assert!(open <= pace.open(with(0)));
            for in_use in 0..open {
                prop_assert!(pace.open(with(in_use)) > in_use);
            }
            prop_assert!(open == pace.slots || pace.open(with(open)) <= open);
        }
    }
}
