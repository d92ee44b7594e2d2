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
