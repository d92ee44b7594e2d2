//! How far what the gateway counted of a deployment's day is from what Azure Monitor has of it.
//!
//! What Azure has no figure of is unknown, and no zero: [`Figure::drift`] is `None` then, and a [`Note`]
//! says why a drift may be none of the gateway's counting.

mod metered;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use self::metered::{GENERATED, Metered, MeteredDay, PROMPT, REQUESTS, STATUS};

/// Hours of a day.
const HOURS: u8 = 24;

/// A count of a day, as the gateway has it and as Azure does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figure {
    /// The gateway's.
    pub ours: u64,
    /// Azure's; `None`: it has none.
    pub metered: Option<u64>,
}

impl Figure {
    /// By how much the gateway counted more than Azure; negative: less. `None`: not known.
    pub fn drift(&self) -> Option<i128> {
        Some(i128::from(self.ours) - i128::from(self.metered?))
    }

    /// The drift in percent of Azure's count, to a hundredth. `None`: not known, or Azure counted nothing
    /// although the gateway did.
    pub fn percent(&self) -> Option<f64> {
        let (drift, metered) = (self.drift()?, i128::from(self.metered?));
        if metered == 0 {
            return (drift == 0).then_some(0.0);
        }
        let doubled = drift * 20_000 / metered;
        let hundredths = (doubled + doubled.signum()) / 2;
        let hundredths = i32::try_from(hundredths).unwrap_or(i32::MAX);
        Some(f64::from(hundredths) / 100.0)
    }

    /// Whether the drift is known and more than so many percent of Azure's count.
    pub fn is_beyond(&self, percent: u32) -> bool {
        let (Some(drift), Some(metered)) = (self.drift(), self.metered) else {
            return false;
        };
        drift.unsigned_abs() * 100 > u128::from(metered) * u128::from(percent)
    }

    /// Adds another day's, where that is known on both sides.
    fn add(&mut self, other: &Self) {
        let Some(metered) = other.metered else { return };
        self.ours = self.ours.saturating_add(other.ours);
        self.metered = Some(self.metered.unwrap_or(0).saturating_add(metered));
    }
}

/// What the gateway counted of a deployment's day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Calls that got a good answer.
    pub requests: u64,
    /// Prompt tokens, cached ones included.
    pub prompt: u64,
    /// Generated tokens, reasoning included.
    pub generated: u64,
    /// The tokens among these that the gateway estimated.
    pub estimated: u64,
}

impl Counted {
    /// Adds another app's.
    pub const fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.prompt = self.prompt.saturating_add(other.prompt);
        self.generated = self.generated.saturating_add(other.generated);
        self.estimated = self.estimated.saturating_add(other.estimated);
    }
}

/// A deployment's day, reconciled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// The UTC day, such as `2026-11-28`.
    pub day: Arc<str>,
    /// The backend.
    pub backend: Arc<str>,
    /// The deployment's name on it.
    pub deployment: Arc<str>,
    /// Whether others call it past the gateway, as the configuration says.
    pub is_shared: bool,
    /// Calls that got a good answer.
    pub requests: Figure,
    /// Prompt tokens.
    pub prompt: Figure,
    /// Generated tokens.
    pub generated: Figure,
    /// The tokens of the gateway's that it estimated.
    pub estimated: u64,
    /// Hours of the day that Azure has any figure of.
    pub hours: u8,
}

impl Reconciled {
    /// Of a deployment of which both say something; `None` where neither does.
    pub fn of(
        day: &Arc<str>,
        (backend, deployment): (&Arc<str>, &Arc<str>),
        is_shared: bool,
        counted: &Counted,
        metered: &Metered,
    ) -> Option<Self> {
        let is_called = *counted != Counted::default() || !metered.is_nothing();
        is_called.then(|| Self {
            day: Arc::clone(day),
            backend: Arc::clone(backend),
            deployment: Arc::clone(deployment),
            is_shared,
            requests: Figure {
                ours: counted.requests,
                metered: metered.requests,
            },
            prompt: Figure {
                ours: counted.prompt,
                metered: metered.prompt,
            },
            generated: Figure {
                ours: counted.generated,
                metered: metered.generated,
            },
            estimated: counted.estimated,
            hours: metered.hours(),
        })
    }

    /// The drift of its tokens, percent of Azure's count: of prompt and generated tokens the larger.
    pub fn percent(&self) -> Option<f64> {
        farther(self.prompt.percent(), self.generated.percent())
    }

    /// Whether its prompt or generated tokens drift by more than so many percent.
    pub fn is_beyond(&self, percent: u32) -> bool {
        self.prompt.is_beyond(percent) || self.generated.is_beyond(percent)
    }

    /// Whether Azure has a figure of its tokens.
    pub const fn is_metered(&self) -> bool {
        self.prompt.metered.is_some() || self.generated.metered.is_some()
    }

    /// What there is to know about its drift.
    pub fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        let figures = [self.requests, self.prompt, self.generated];
        let lacks = |figure: &Figure| figure.drift().is_some_and(|drift| drift > 0);
        if !self.is_metered() {
            notes.push(Note::Unmetered);
        } else if self.hours < HOURS && figures.iter().any(lacks) {
            notes.push(Note::Hours(self.hours));
        }
        if self.is_shared {
            notes.push(Note::Shared);
        }
        match self.requests.metered {
            Some(metered) if metered > self.requests.ours => {
                notes.push(Note::NotOurs(metered - self.requests.ours));
            }
            Some(metered) if metered < self.requests.ours => {
                notes.push(Note::OnlyOurs(self.requests.ours - metered));
            }
            _ => {}
        }
        if self.estimated > 0 {
            notes.push(Note::Estimated(self.estimated));
        }
        notes
    }

    /// The notes as one text; empty where there are none.
    pub fn note(&self) -> String {
        let notes = self.notes().into_iter().map(|note| note.to_string());
        notes.collect::<Vec<_>>().join("; ")
    }
}

/// What there is to know about a drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Azure has no figure of its tokens: how far they drift is not known.
    Unmetered,
    /// Azure has figures of so many hours only, and counts less: it may be late.
    Hours(u8),
    /// Others call it past the gateway, as the configuration says.
    Shared,
    /// Azure answered so many calls more than the gateway knows of.
    NotOurs(u64),
    /// The gateway had so many answers more than Azure counts.
    OnlyOurs(u64),
    /// So many of the gateway's tokens are estimated.
    Estimated(u64),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmetered => f.write_str("Azure Monitor has no figure of its tokens"),
            Self::Hours(hours) => {
                write!(f, "Azure Monitor has figures of {hours} of {HOURS} hours")
            }
            Self::Shared => f.write_str("shared with callers past the gateway"),
            Self::NotOurs(calls) => write!(
                f,
                "{calls} calls more at Azure: others call it, or events are missing"
            ),
            Self::OnlyOurs(calls) => write!(f, "{calls} calls fewer at Azure"),
            Self::Estimated(tokens) => write!(f, "{tokens} tokens are estimated"),
        }
    }
}

/// Some days of a deployment together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The backend.
    pub backend: Arc<str>,
    /// The deployment's name on it.
    pub deployment: Arc<str>,
    /// Days that were reconciled.
    pub days: u32,
    /// Those among them of whose tokens Azure has no figure; they are not in the figures.
    pub unmetered_days: u32,
    /// Calls that got a good answer.
    pub requests: Figure,
    /// Prompt tokens.
    pub prompt: Figure,
    /// Generated tokens.
    pub generated: Figure,
    /// The tokens of the gateway's that it estimated.
    pub estimated: u64,
}

impl Summary {
    /// As [`Reconciled::percent`].
    pub fn percent(&self) -> Option<f64> {
        farther(self.prompt.percent(), self.generated.percent())
    }
}

/// The days by deployment, in the order of their names.
pub fn summaries(days: &[Reconciled]) -> Vec<Summary> {
    let mut all: BTreeMap<(&Arc<str>, &Arc<str>), Summary> = BTreeMap::new();
    for day in days {
        let sum = all.entry((&day.backend, &day.deployment)).or_default();
        sum.backend = Arc::clone(&day.backend);
        sum.deployment = Arc::clone(&day.deployment);
        sum.days += 1;
        sum.unmetered_days += u32::from(!day.is_metered());
        sum.requests.add(&day.requests);
        sum.prompt.add(&day.prompt);
        sum.generated.add(&day.generated);
        sum.estimated = sum.estimated.saturating_add(day.estimated);
    }
    all.into_values().collect()
}

fn farther(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) if b.abs() > a.abs() => Some(b),
        (a, b) => a.or(b),
    }
}
