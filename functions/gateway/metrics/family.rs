//! Metrics as they are shown to the outside, whichever way: names, units and attributes in OpenTelemetry's
//! terms, and what was counted.

use super::histogram::Tally;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// A count since the process began: it only grows.
    Counter,
    /// How something stands.
    Gauge,
    /// How often values of each size came, since the process began.
    Histogram,
}

/// A metric and all its samples.
#[derive(Clone, Debug)]
pub struct Family {
    /// Its name, for example `spillway.calls`.
    pub name: &'static str,
    /// Its unit in UCUM, as OpenTelemetry has it: `s`, `1` of a ratio, `%`, `{token}`; empty where there is none.
    pub unit: &'static str,
    /// What it is.
    pub sort: Sort,
    /// What it says, in a sentence.
    pub help: &'static str,
    /// Its samples, each with other attributes.
    pub samples: Vec<Sample>,
}

/// A figure, and what it is of.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What it is of.
    pub attributes: Vec<(&'static str, String)>,
    /// The figure.
    pub value: Value,
}

/// A figure.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Whole(u64),
    /// Any other number.
    Real(f64),
    /// What a histogram counted.
    Buckets(Buckets),
}

/// What a histogram counted. Times are in milliseconds here, whatever the family's unit is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// Whether the values are times.
    pub is_time: bool,
    /// The upper bounds, ascending.
    pub bounds: &'static [u64],
    /// Values of at most each bound.
    pub at_most: Vec<u64>,
    /// All values.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
}

impl Buckets {
    /// What `tally` counted, by these bounds, which are among its own.
    pub fn of(tally: &Tally, bounds: &'static [u64], is_time: bool) -> Self {
        Self {
            is_time,
            bounds,
            at_most: bounds.iter().map(|bound| tally.at_most(*bound)).collect(),
            count: tally.count(),
            sum: tally.sum,
        }
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Whole(number.into())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<Buckets> for Value {
    fn from(buckets: Buckets) -> Self {
        Self::Buckets(buckets)
    }
}

impl Family {
    /// Adds a sample.
    pub fn sample(&mut self, attributes: &[(&'static str, &str)], value: impl Into<Value>) {
        let attributes = attributes.iter();
        self.samples.push(Sample {
            attributes: attributes
                .map(|(key, of)| (*key, (*of).to_owned()))
                .collect(),
            value: value.into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::histogram::MS;
    use super::*;

    #[test]
    fn what_is_shown_is_what_was_counted_at_the_bounds_that_are_asked_for() {
        let mut tally = Tally::none(MS);
        tally.fill(0, 3);
        tally.sum = 12;
        let mut family = Family {
            name: "spillway.call.duration",
            unit: "s",
            sort: Sort::Histogram,
            help: "How long calls took.",
            samples: Vec::new(),
        };
        let bounds = MS.get(..1).unwrap();
        family.sample(&[("spillway.app", "a")], Buckets::of(&tally, bounds, true));
        let sample = family.samples.pop().unwrap();
        assert_eq!(sample.attributes, [("spillway.app", "a".to_owned())]);
        let Value::Buckets(buckets) = sample.value else {
            panic!("{sample:?}");
        };
        assert_eq!(
            (buckets.at_most, buckets.count, buckets.sum),
            (vec![3], 3, 12)
        );
    }

    #[test]
    fn a_figure_keeps_its_sort() {
        let mut family = Family {
            name: "spillway.slots.open",
            unit: "",
            sort: Sort::Gauge,
            help: "Slots that are open.",
            samples: Vec::new(),
        };
        family.sample(&[], 7_u64);
        family.sample(&[], 7_u32);
        family.sample(&[], 0.5);
        let values: Vec<Value> = family.samples.into_iter().map(|one| one.value).collect();
        assert_eq!(values, [Value::Whole(7), Value::Whole(7), Value::Real(0.5)]);
    }
}
