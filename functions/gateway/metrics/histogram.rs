//! Histograms of fixed buckets.

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of the buckets of times, ms. Those of OpenTelemetry's
/// `gen_ai.client.operation.duration` (10 ms doubled thirteen times) and three between each two,
/// so that a quantile is off by an eighth at most; below them some for what is quicker.
pub const MS: &[u64] = &[
    1, 2, 3, 5, 7, 10, 12, 15, 17, 20, 25, 30, 35, 40, 50, 60, 70, 80, 100, 120, 140, 160, 200,
    240, 280, 320, 400, 480, 560, 640, 800, 960, 1120, 1280, 1600, 1920, 2240, 2560, 3200, 3840,
    4480, 5120, 6400, 7680, 8960, 10_240, 12_800, 15_360, 17_920, 20_480, 25_600, 30_720, 35_840,
    40_960, 51_200, 61_440, 71_680, 81_920, 122_880, 163_840, 327_680,
];

/// Upper bounds of OpenTelemetry's `gen_ai.client.operation.duration` and
/// `gen_ai.client.operation.time_to_first_chunk`, ms (semantic conventions for generative AI
/// metrics). All of them are bounds of [`MS`] too.
pub const OTEL_MS: &[u64] = &[
    10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10_240, 20_480, 40_960, 81_920,
];

/// Upper bounds of OpenTelemetry's `gen_ai.client.token.usage`.
pub const TOKENS: &[u64] = &[
    1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216,
    67_108_864,
];

/// A histogram that threads count in.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One a bound, and one for what is beyond the last.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// An empty one with these upper bounds, which ascend.
    pub fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    /// Counts a value.
    pub fn count(&self, value: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Relaxed);
            self.sum.fetch_add(value, Relaxed);
        }
    }

    pub(super) fn add_to(&self, tally: &mut Tally) {
        for (total, bucket) in tally.buckets.iter_mut().zip(&self.buckets) {
            *total += bucket.load(Relaxed);
        }
        tally.sum += self.sum.load(Relaxed);
    }
}

/// What a histogram has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    bounds: &'static [u64],
    buckets: Vec<u64>,
    /// Sum of all values.
    pub sum: u64,
}

impl Tally {
    /// Nothing counted.
    pub fn none(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            buckets: vec![0; bounds.len() + 1],
            sum: 0,
        }
    }

    /// Values counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Values of at most `bound`, which has to be one of the buckets' bounds.
    pub fn at_most(&self, bound: u64) -> u64 {
        let buckets = self.bounds.iter().zip(&self.buckets);
        let within = buckets.filter(|(upper, _)| **upper <= bound);
        within.map(|(_, count)| count).sum()
    }

    /// The value that `percent` of all values (1 to 100) are at most, interpolated within its
    /// bucket; `None` where nothing was counted. What is beyond the last bound counts as that.
    pub fn quantile(&self, percent: u64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        // Whole numbers: 7 % of 100 as a float rounds up to the 8th.
        let rank = percent.clamp(1, 100).saturating_mul(count).div_ceil(100);
        let mut below = 0;
        let mut lower = 0;
        for (bucket, upper) in self.buckets.iter().zip(self.bounds) {
            if below + bucket >= rank {
                let within = u128::from(upper - lower) * u128::from(rank - below);
                let step = within.div_ceil(u128::from(*bucket));
                return Some(lower + u64::try_from(step).unwrap_or_default());
            }
            below += bucket;
            lower = *upper;
        }
        Some(lower)
    }

    /// Adds what another one with the same bounds counted.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.sum += other.sum;
    }

    /// What was counted since `earlier`, a look at the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let pairs = self.buckets.iter().zip(&earlier.buckets);
        Self {
            bounds: self.bounds,
            buckets: pairs.map(|(now, then)| now.saturating_sub(*then)).collect(),
            sum: self.sum.saturating_sub(earlier.sum),
        }
    }

    /// The buckets that hold anything: their number and count.
    pub fn filled(&self) -> impl Iterator<Item = (usize, u64)> {
        let all = self.buckets.iter().copied().enumerate();
        all.filter(|(_, count)| *count > 0)
    }

    /// Puts back what [`Self::filled`] gave. A bucket that there is not is passed over.
    pub fn fill(&mut self, place: usize, count: u64) {
        if let Some(bucket) = self.buckets.get_mut(place) {
            *bucket = bucket.saturating_add(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tally(values: &[u64]) -> Tally {
        let histogram = Histogram::new(MS);
        values.iter().for_each(|value| histogram.count(*value));
        let mut tally = Tally::none(MS);
        histogram.add_to(&mut tally);
        tally
    }

    #[test]
    fn opentelemetrys_bounds_are_among_the_finer_ones_and_all_ascend() {
        assert!(OTEL_MS.iter().all(|bound| MS.contains(bound)));
        for bounds in [MS, OTEL_MS, TOKENS] {
            assert!(bounds.is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    fn a_value_on_a_bound_counts_below_it() {
        let tally = tally(&[10, 11]);
        assert_eq!(tally.at_most(10), 1);
        assert_eq!(tally.at_most(20), 2);
        assert_eq!((tally.count(), tally.sum), (2, 21));
    }

    #[test]
    fn nothing_has_no_quantile_and_what_is_beyond_all_bounds_is_the_last() {
        assert_eq!(tally(&[]).quantile(50), None);
        assert_eq!(tally(&[u64::MAX / 2]).quantile(50), MS.last().copied());
    }

    #[test]
    fn the_rank_of_a_quantile_is_exact() {
        let values: Vec<u64> = (1..=100).map(|n| if n <= 7 { 1 } else { 1000 }).collect();
        assert_eq!(tally(&values).quantile(7), Some(1));
    }

    #[test]
    fn what_was_counted_since_is_the_difference() {
        let (early, late) = (tally(&[5, 500]), tally(&[5, 500, 7000]));
        assert_eq!(late.since(&early), tally(&[7000]));
        let mut sum = early;
        sum.add(&tally(&[7000]));
        assert_eq!(sum, late);
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_its_bucket(
            mut values in proptest::collection::vec(1u64..300_000, 1..200),
            percent in 1u32..100,
        ) {
            let found = tally(&values).quantile(u64::from(percent)).unwrap();
            values.sort_unstable();
            let rank = (percent as usize * values.len()).div_ceil(100);
            let exact = values[rank - 1];
            let place = MS.partition_point(|bound| *bound < exact);
            let lower = if place == 0 { 0 } else { MS[place - 1] };
            prop_assert!(found > lower && found <= MS[place], "{found} for {exact}");
        }
    }
}
