//! How instances tell each other which deployments are full.
//!
//! An instance learns from a 429 that a deployment is full. Left alone with that, each of ten
//! instances has to learn it by a call of its own, again and again. So each keeps a row that says
//! which deployments its own calls find full and until when ([`Board::news`]), and reads the rows of
//! the others ([`Board::learn`]). No call waits for any of it: a row becomes marks, and calls look at
//! marks as ever.
//!
//! **What is told.** Throttles only. That a deployment is full is so for everybody who calls it; that
//! one can't be reached may be this instance's own network, and what one instance could not reach,
//! the others should not give up. Each instance tells what it met itself and nothing that it heard,
//! so that no mark is handed round for ever.
//!
//! **What it does.** A mark that lasts longer than rows take to arrive keeps the others away. Most
//! marks don't: a full PTU deployment asks for milliseconds, and is found full again as soon as it is
//! asked. There it is of use to know *how many* find it full: they ask in turns
//! ([`super::deployment::Turn`]), together as often as one instance alone would.
//!
//! **Clocks.** A row says how long its marks had to go when it was written, and when that was. Where
//! the writer's clock is slow, marks end too soon; where it is fast, they last longer by that, and a row
//! that is further ahead than [`SKEW_MS`] is not believed.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::deployment::{Deployment, RELAPSE_MS, Turn};
use super::time::Timestamp;

#[cfg(test)]
mod tests;

/// How often an instance looks whether it has something to tell or to ask, ms: rows are written no more
/// often.
pub const TICK_MS: u64 = 250;

/// Time from one reading of the rows to the next, ms.
const INTERVAL_MS: u64 = 500;

/// The same, however many instances there are.
const LONGEST_INTERVAL_MS: u64 = 10_000;

/// Rows that all instances together read in a second at most; the interval is stretched for it. A
/// partition of Table Storage serves 2,000 (Microsoft Learn, "Scalability and performance targets for
/// Table storage").
const ROWS_PER_SECOND: u64 = 2_000;

/// How long after its last call an instance goes on reading, ms: so that the next one finds marks that
/// are up to date.
const LINGER_MS: u64 = 60_000;

/// A mark with less to go is over before the others hear of it, ms; nor is it news that one ends later
/// by less.
const WORTH_MS: u64 = 500;

/// The others hear again of a deployment that is still found full when they would forget it within
/// this time, ms.
const REFRESH_MS: u64 = 500;

/// How far a row may be ahead of the reader's clock, ms.
const SKEW_MS: u64 = 2_000;

/// Age at which a row may be deleted, ms.
const FORGOTTEN_MS: u64 = 10 * 60_000;

/// An instance's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The instance's id.
    pub instance: String,
    /// When it was written, by the instance's clock.
    pub written: Timestamp,
    /// The deployments that its calls find full.
    pub full: Vec<Full>,
}

/// A deployment that an instance's calls find full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Full {
    /// The backend's name.
    pub backend: Arc<str>,
    /// The deployment's name there.
    pub deployment: Arc<str>,
    /// How long after the row was written it is to be left alone, ms; 0: it may be asked.
    pub left_ms: u64,
}

/// What came of reading the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learnt {
    /// Rows that nobody needs any more; whoever likes may delete them.
    pub forgotten: Vec<String>,
    /// Milliseconds until they are to be read again.
    pub next_ms: u64,
}

type Name = (Arc<str>, Arc<str>);

/// What this instance has told the others.
#[derive(Debug)]
pub struct Board {
    instance: String,
    /// Until when the others take a deployment for full, by the last row.
    told: HashMap<Name, Timestamp>,
}

impl Board {
    /// That of an instance that has told nothing yet.
    pub fn new(instance: String) -> Self {
        Self {
            instance,
            told: HashMap::new(),
        }
    }

    /// The row to write; `None` where it would tell nothing new.
    pub fn news(&self, deployments: &[Arc<Deployment>], now: Timestamp) -> Option<Row> {
        let full = || {
            let all = deployments.iter();
            all.filter_map(|deployment| Some((deployment, deployment.found_full_until(now)?)))
        };
        if !full().any(|(deployment, until)| self.is_news(deployment, until, now)) {
            return None;
        }
        let full = full().map(|(deployment, until)| Full {
            backend: Arc::clone(&deployment.spec.backend),
            deployment: Arc::clone(&deployment.spec.name),
            left_ms: until.ms_since(now),
        });
        Some(Row {
            instance: self.instance.clone(),
            written: now,
            full: full.collect(),
        })
    }

    fn is_news(&self, deployment: &Deployment, until: Timestamp, now: Timestamp) -> bool {
        let Some(told) = self.told.get(&name_of(deployment)) else {
            return true;
        };
        let is_longer = until.ms_since(*told) >= WORTH_MS && until.ms_since(now) >= WORTH_MS;
        let is_fading = until > *told && now.plus_ms(REFRESH_MS) >= told.plus_ms(RELAPSE_MS);
        is_longer || is_fading
    }

    /// Notes that the others can read this row now.
    pub fn told(&mut self, row: &Row) {
        let all = row.full.iter();
        let told = all.map(|full| (full.name(), row.written.plus_ms(full.left_ms)));
        self.told = told.collect();
    }

    /// Takes over what the rows say of `deployments`. No mark lasts longer by it than `max_ms` from
    /// `now`.
    pub fn learn(
        &self,
        rows: &[Row],
        deployments: &[Arc<Deployment>],
        max_ms: u64,
        now: Timestamp,
    ) -> Learnt {
        let mut by_name: HashMap<Name, Vec<(&str, Timestamp)>> = HashMap::new();
        let mut live = 1;
        let others = rows.iter().filter(|row| row.instance != self.instance);
        for row in others.filter(|row| row.written.ms_since(now) <= SKEW_MS) {
            live += u64::from(now.ms_since(row.written) <= LINGER_MS);
            for full in &row.full {
                let end = row.written.min(now).plus_ms(full.left_ms.min(max_ms));
                if now.ms_since(end) <= RELAPSE_MS {
                    let claims = by_name.entry(full.name()).or_default();
                    claims.push((&row.instance, end));
                }
            }
        }
        for deployment in deployments {
            let claims = by_name.get(&name_of(deployment));
            let claims = claims.map(Vec::as_slice).unwrap_or_default();
            let until = claims.iter().map(|(_, end)| *end).max();
            deployment.others_say(until, self.turn(claims), now);
        }
        let old = rows
            .iter()
            .filter(|row| now.ms_since(row.written) > FORGOTTEN_MS);
        Learnt {
            forgotten: old.map(|row| row.instance.clone()).collect(),
            next_ms: interval_ms(live),
        }
    }

    /// Goes on as if there were no others: what they say can't be read. Their marks end by themselves.
    pub fn forget_others(&self, deployments: &[Arc<Deployment>], now: Timestamp) {
        for deployment in deployments {
            deployment.others_say(None, Turn::ALONE, now);
        }
    }

    /// This instance's turn beside those that find a deployment full.
    fn turn(&self, others: &[(&str, Timestamp)]) -> Turn {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX - 1);
        let before = others.iter().filter(|(id, _)| *id < &*self.instance);
        Turn {
            place: count(before.count()),
            of: count(others.len()) + 1,
        }
    }
}

impl Full {
    fn name(&self) -> Name {
        (Arc::clone(&self.backend), Arc::clone(&self.deployment))
    }
}

fn name_of(deployment: &Deployment) -> Name {
    let spec = &deployment.spec;
    (Arc::clone(&spec.backend), Arc::clone(&spec.name))
}

/// Whether an instance that had its last call at `last_call` asks what the others say.
pub fn is_listening(last_call: Timestamp, now: Timestamp) -> bool {
    now.ms_since(last_call) <= LINGER_MS
}

/// Milliseconds from reading to reading with so many instances that have rows. Each reads all of them,
/// so with many they read less often.
fn interval_ms(instances: u64) -> u64 {
    let rows = instances.saturating_mul(instances);
    let stretched = rows.saturating_mul(1000) / ROWS_PER_SECOND;
    stretched.clamp(INTERVAL_MS, LONGEST_INTERVAL_MS)
}
