//! What spilling cost, and whose it is: a call spills because others have filled the PTU.
//!
//! What spilled calls of a model cost in a minute is attributed to the apps whose calls PTUs took
//! for that model in the same minute, by their weighted tokens: in a minute the PTU's bucket drains
//! once ([`super::super::ptu`]). It stays on the bill of the app that made the calls; this is
//! a second view of the same money, not more of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::Decimal;

use super::line::add_amount;
use super::split::{split, split_count};
use super::{BillError, MAX_LINES};
use crate::gateway::time::Timestamp;

/// Who filled a PTU in a minute in which no app's calls were seen there: nobody is blamed.
pub const NOBODY: &str = "(nobody seen)";

const MINUTE_MS: u64 = 60_000;

/// A call, as far as spilling goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// When it came in.
    pub time: Timestamp,
    /// Who pays.
    pub app: Arc<str>,
    /// The model that was asked for.
    pub model: Arc<str>,
    /// What became of it.
    pub was: Was,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Was {
    /// A PTU took it: weighted tokens.
    Taken(u64),
    /// It spilled: its tokens, and what they cost where that is known.
    Spilled(u64, Option<Decimal>),
}

/// What spilled calls came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spilled {
    /// Calls.
    pub calls: u64,
    /// Their tokens.
    pub tokens: u64,
    /// What they cost, as far as that is known.
    pub cost: Decimal,
}

/// One line: whose calls spilled, and who had filled the PTU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpillLine {
    /// Who had filled it.
    pub filled_by: Arc<str>,
    /// Whose calls spilled, and are on its bill.
    pub app: Arc<str>,
    /// The model.
    pub model: Arc<str>,
    /// The part of it that is the first one's; calls and tokens in whole ones.
    pub spilled: Spilled,
}

#[derive(Debug, Default)]
struct Minute {
    /// Weighted tokens by app.
    taken: BTreeMap<Arc<str>, u64>,
    spilled: BTreeMap<Arc<str>, Spilled>,
}

/// Who filled it, whose call spilled, and of which model.
type Who = (Arc<str>, Arc<str>, Arc<str>);

/// The spilling of a day in the making. It holds a row a minute, model and app.
#[derive(Debug, Default)]
pub struct Spills {
    minutes: BTreeMap<(u64, Arc<str>), Minute>,
    lines: BTreeMap<Who, Spilled>,
}

impl Spills {
    /// Notes a call of the day in hand.
    ///
    /// # Errors
    /// [`BillError`].
    pub fn add(&mut self, call: &Call) -> Result<(), BillError> {
        let minute = call.time.unix_ms() / MINUTE_MS;
        let minute = self.minutes.entry((minute, Arc::clone(&call.model)));
        let minute = minute.or_default();
        match call.was {
            Was::Taken(weighted) => {
                let sum = minute.taken.entry(Arc::clone(&call.app)).or_default();
                *sum = sum.checked_add(weighted).ok_or(BillError::TooLarge)?;
            }
            Was::Spilled(tokens, cost) => {
                let sum = minute.spilled.entry(Arc::clone(&call.app)).or_default();
                sum.add(&Spilled {
                    calls: 1,
                    tokens,
                    cost: cost.unwrap_or_default(),
                })?;
            }
        }
        Ok(())
    }

    /// Attributes what spilled on the day in hand.
    ///
    /// # Errors
    /// [`BillError`].
    pub fn close_day(&mut self) -> Result<(), BillError> {
        for ((_, model), minute) in std::mem::take(&mut self.minutes) {
            let (mut apps, mut weights): (Vec<_>, Vec<_>) = minute.taken.into_iter().unzip();
            if weights.iter().all(|weight| *weight == 0) {
                (apps, weights) = (vec![NOBODY.into()], vec![1]);
            }
            for (app, spilled) in minute.spilled {
                let parts = parts(&spilled, &weights).ok_or(BillError::TooLarge)?;
                for (filled_by, part) in apps.iter().zip(parts) {
                    if part == Spilled::default() {
                        continue;
                    }
                    let key = (Arc::clone(filled_by), Arc::clone(&app), Arc::clone(&model));
                    if self.lines.len() >= MAX_LINES && !self.lines.contains_key(&key) {
                        return Err(BillError::TooManyLines);
                    }
                    self.lines.entry(key).or_default().add(&part)?;
                }
            }
        }
        Ok(())
    }

    /// The lines, by who filled the PTU.
    pub fn finish(self) -> Vec<SpillLine> {
        let lines = self.lines.into_iter();
        let lines = lines.map(|((filled_by, app, model), spilled)| SpillLine {
            filled_by,
            app,
            model,
            spilled,
        });
        lines.collect()
    }
}

impl Spilled {
    fn add(&mut self, other: &Self) -> Result<(), BillError> {
        let sum = |a: u64, b: u64| a.checked_add(b).ok_or(BillError::TooLarge);
        self.calls = sum(self.calls, other.calls)?;
        self.tokens = sum(self.tokens, other.tokens)?;
        add_amount(&mut self.cost, other.cost)
    }
}

fn parts(spilled: &Spilled, weights: &[u64]) -> Option<Vec<Spilled>> {
    let calls = split_count(spilled.calls, weights)?;
    let tokens = split_count(spilled.tokens, weights)?;
    let costs = split(spilled.cost, weights)?;
    let parts = calls.into_iter().zip(tokens).zip(costs);
    let parts = parts.map(|((calls, tokens), cost)| Spilled {
        calls,
        tokens,
        cost,
    });
    Some(parts.collect())
}
