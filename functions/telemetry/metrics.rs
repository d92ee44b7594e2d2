//! The metrics of `/spillway/metrics` as OTLP has them: cumulative, since the process began.

use super::messages::metrics::{
    Data, Gauge, Histogram, HistogramPoint, Metric, Number, NumberPoint, Sum, Temporality,
};
use super::messages::{KeyValue, whole};
use super::nanoseconds;
use crate::gateway::metrics::family::{Buckets, Family, Sample, Sort, Value};
use crate::gateway::time::Timestamp;

/// The metrics of these families, as they are `now`, of a process that counts since `started`. A family
/// without samples is none.
pub(super) fn of(families: &[Family], started: Timestamp, now: Timestamp) -> Vec<Metric> {
    let time = Time {
        start: nanoseconds(started),
        now: nanoseconds(now),
    };
    let filled = families.iter().filter(|family| !family.samples.is_empty());
    filled
        .map(|family| Metric {
            name: family.name.to_owned(),
            description: family.help.to_owned(),
            unit: family.unit.to_owned(),
            data: Some(time.data(family)),
        })
        .collect()
}

/// Nanoseconds since the Unix epoch.
struct Time {
    start: u64,
    now: u64,
}

impl Time {
    fn data(&self, family: &Family) -> Data {
        let samples = family.samples.iter();
        let numbers = |start| {
            let points = samples.clone();
            points
                .filter_map(|sample| self.number(sample, start))
                .collect()
        };
        let temporality = Temporality::Cumulative.into();
        match family.sort {
            Sort::Gauge => Data::Gauge(Gauge { points: numbers(0) }),
            Sort::Counter => Data::Sum(Sum {
                points: numbers(self.start),
                temporality,
                is_monotonic: true,
            }),
            Sort::Histogram => Data::Histogram(Histogram {
                points: samples
                    .clone()
                    .filter_map(|sample| self.histogram(sample))
                    .collect(),
                temporality,
            }),
        }
    }

    fn number(&self, sample: &Sample, start: u64) -> Option<NumberPoint> {
        let value = match sample.value {
            Value::Whole(number) => Number::Whole(whole(number)),
            Value::Real(number) => Number::Real(number),
            Value::Buckets(_) => return None,
        };
        Some(NumberPoint {
            start,
            time: self.now,
            value: Some(value),
            attributes: attributes(sample),
        })
    }

    fn histogram(&self, sample: &Sample) -> Option<HistogramPoint> {
        let Value::Buckets(buckets) = &sample.value else {
            return None;
        };
        let unit = |value| in_unit(value, buckets.is_time);
        Some(HistogramPoint {
            start: self.start,
            time: self.now,
            count: buckets.count,
            sum: Some(unit(buckets.sum)),
            bucket_counts: counts(buckets),
            explicit_bounds: buckets.bounds.iter().map(|bound| unit(*bound)).collect(),
            attributes: attributes(sample),
        })
    }
}

/// How many values each bucket has of its own.
fn counts(buckets: &Buckets) -> Vec<u64> {
    let mut below = 0;
    let ends = buckets.at_most.iter().chain([&buckets.count]);
    ends.map(|end| end.saturating_sub(std::mem::replace(&mut below, *end)))
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 ms")]
fn in_unit(value: u64, is_time: bool) -> f64 {
    let value = value as f64;
    if is_time { value / 1000.0 } else { value }
}

fn attributes(sample: &Sample) -> Vec<KeyValue> {
    let attributes = sample.attributes.iter();
    attributes
        .map(|(key, value)| KeyValue::new(key, value.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(sort: Sort, value: impl Into<Value>) -> Family {
        let mut family = Family {
            name: "a",
            unit: "s",
            sort,
            help: "Says it.",
            samples: Vec::new(),
        };
        family.sample(&[("spillway.app", "portal")], value);
        family
    }

    fn data(sort: Sort, value: impl Into<Value>) -> Data {
        let (started, now) = (Timestamp::from_unix_ms(1), Timestamp::from_unix_ms(2));
        let mut all = of(&[family(sort, value)], started, now);
        all.remove(0).data.unwrap()
    }

    #[test]
    fn a_counter_grows_from_the_start_of_the_process() {
        let Data::Sum(sum) = data(Sort::Counter, 7u64) else {
            panic!()
        };
        assert!(sum.is_monotonic && sum.temporality == 2);
        let point = &sum.points[0];
        assert_eq!((point.start, point.time), (1_000_000, 2_000_000));
        assert_eq!(point.value, Some(Number::Whole(7)));
        assert_eq!(point.attributes, [KeyValue::new("spillway.app", "portal")]);
    }

    #[test]
    fn a_gauge_has_no_start() {
        let Data::Gauge(gauge) = data(Sort::Gauge, 0.5) else {
            panic!()
        };
        assert_eq!(gauge.points[0].start, 0);
        assert_eq!(gauge.points[0].value, Some(Number::Real(0.5)));
    }

    #[test]
    fn a_histograms_buckets_are_apart_and_in_seconds() {
        let buckets = Buckets {
            is_time: true,
            bounds: &[10, 2500],
            at_most: vec![1, 3],
            count: 4,
            sum: 9005,
        };
        let Data::Histogram(histogram) = data(Sort::Histogram, buckets) else {
            panic!()
        };
        let point = &histogram.points[0];
        assert_eq!(point.bucket_counts, [1, 2, 1]);
        assert_eq!(point.explicit_bounds, [0.01, 2.5]);
        assert_eq!((point.count, point.sum), (4, Some(9.005)));
    }

    #[test]
    fn a_family_without_samples_is_not_sent() {
        let mut none = family(Sort::Gauge, 1u64);
        none.samples.clear();
        let at = Timestamp::default();
        assert_eq!(of(&[none], at, at), []);
    }
}
