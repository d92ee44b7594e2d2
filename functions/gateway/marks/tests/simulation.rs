//! Instances in front of one deployment that is full for a while, in simulated time: how many of their
//! calls meet a 429, and whether the deployment is used whole.

use std::collections::BTreeMap;

use super::super::super::ptu::{CallTokens, ModelRate, PtuBucket};
use super::*;

/// How long the answer to a call that is refused takes, ms: those made meanwhile are refused too.
const REFUSAL_MS: u64 = 20;
/// How far an instance's clock may be off, ms.
const CLOCK_MS: u64 = 25;
/// Calls a minute that the deployment with a quota takes.
const QUOTA: u64 = 60;
const MINUTE_MS: u64 = 60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    /// A PTU deployment that does 100 calls a second. It is offered 300 for 90 s, of which its bucket
    /// takes 30 s to fill. It says to come back after a few ms.
    Ptu,
    /// A PAYG deployment with a quota of 60 calls a minute. It is offered 120 for five minutes. It
    /// says to come back at the minute's end.
    Quota,
}

impl Full {
    const fn lasts_ms(self) -> u64 {
        match self {
            Self::Ptu => 90_000,
            Self::Quota => 5 * MINUTE_MS,
        }
    }

    const fn calls_per_minute(self) -> u64 {
        match self {
            Self::Ptu => 300 * 60,
            Self::Quota => 2 * QUOTA,
        }
    }

    /// What it can take in that time, with what its bucket holds.
    const fn capacity(self) -> u64 {
        match self {
            Self::Ptu => 100 * 90 + 6_000,
            Self::Quota => QUOTA * 5,
        }
    }
}

enum Backend {
    Ptu(PtuBucket),
    Quota { minute: u64, calls: u64 },
}

impl Backend {
    /// Takes a call, or says after how many ms to come back.
    fn call(&mut self, ms: u64) -> Result<(), u64> {
        match self {
            Self::Ptu(bucket) => {
                let tokens = CallTokens {
                    prompt: 10,
                    ..CallTokens::default()
                };
                let reserved = bucket.admit(tokens, at(ms));
                let reserved = reserved.map_err(|full| full.retry_after_ms)?;
                bucket.settle(reserved, tokens, at(ms));
                Ok(())
            }
            Self::Quota { minute, calls } => {
                if *minute != ms / MINUTE_MS {
                    (*minute, *calls) = (ms / MINUTE_MS, 0);
                }
                if *calls == QUOTA {
                    return Err(MINUTE_MS - ms % MINUTE_MS);
                }
                *calls += 1;
                Ok(())
            }
        }
    }
}

/// What an instance's errand to the table is doing.
enum Errand {
    Sleeping { until: u64 },
    Writing { due: u64, row: Row },
    Reading { due: u64, rows: Vec<Row> },
}

struct One {
    instance: Instance,
    /// What its clock is ahead, from 0 to twice [`CLOCK_MS`].
    ahead_ms: u64,
    errand: Errand,
    next_read: u64,
    /// Refusals on their way back: when, and how long they ask for.
    refusals: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    refused: u64,
    /// Percent of what the deployment could have taken.
    used: u64,
}

struct World {
    full: Full,
    shares: bool,
    random: fastrand::Rng,
    backend: Backend,
    table: BTreeMap<String, Row>,
    fleet: Vec<One>,
    refused: u64,
    served: u64,
}

impl World {
    fn new(full: Full, instances: usize, shares: bool, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let fleet = (0..instances).map(|number| One {
            instance: Instance::new(&format!("{number:02}")),
            ahead_ms: random.u64(..=2 * CLOCK_MS),
            errand: Errand::Sleeping {
                until: random.u64(..TICK_MS),
            },
            next_read: 0,
            refusals: Vec::new(),
        });
        Self {
            full,
            shares,
            fleet: fleet.collect(),
            random,
            backend: match full {
                // 60,000 tokens a minute, 10 a call.
                Full::Ptu => Backend::Ptu(PtuBucket::new(24, ModelRate::ASSUMED, at(0))),
                Full::Quota => Backend::Quota {
                    minute: 0,
                    calls: 0,
                },
            },
            table: BTreeMap::new(),
            refused: 0,
            served: 0,
        }
    }

    fn run(mut self) -> Outcome {
        for ms in 0..self.full.lasts_ms() {
            for index in 0..self.fleet.len() {
                self.hear_refusals(index, ms);
                if self.shares {
                    self.errand(index, ms);
                }
            }
            if self.random.u64(..MINUTE_MS) < self.full.calls_per_minute() {
                let index = self.random.usize(..self.fleet.len());
                self.call(index, ms);
            }
        }
        Outcome {
            refused: self.refused,
            used: self.served * 100 / self.full.capacity(),
        }
    }

    fn call(&mut self, index: usize, ms: u64) {
        let one = &mut self.fleet[index];
        if !one.instance.all[0].admits(at(ms + one.ahead_ms), 0, 0) {
            return;
        }
        match self.backend.call(ms) {
            Ok(()) => self.served += 1,
            Err(retry_after_ms) => {
                self.refused += 1;
                one.refusals.push((ms + REFUSAL_MS, retry_after_ms));
            }
        }
    }

    fn hear_refusals(&mut self, index: usize, ms: u64) {
        let one = &mut self.fleet[index];
        let (instance, now) = (&one.instance, at(ms + one.ahead_ms));
        one.refusals.retain(|(due, retry_after_ms)| {
            if *due == ms {
                instance.meets_429(*retry_after_ms, now);
            }
            *due > ms
        });
    }

    /// What the table takes for an answer, ms: mostly some ten.
    fn table_ms(&mut self) -> u64 {
        match self.random.u32(..50) {
            0 => 500,
            _ => self.random.u64(5..50),
        }
    }

    fn errand(&mut self, index: usize, ms: u64) {
        let delay = self.table_ms();
        let one = &mut self.fleet[index];
        let now = at(ms + one.ahead_ms);
        let read = |one: &mut One, table: &BTreeMap<String, Row>| {
            if ms < one.next_read {
                return Errand::Sleeping {
                    until: ms + TICK_MS,
                };
            }
            Errand::Reading {
                due: ms + delay,
                rows: table.values().cloned().collect(),
            }
        };
        match &one.errand {
            Errand::Sleeping { until } if *until <= ms => {
                one.errand = match one.instance.board.news(&one.instance.all, now) {
                    Some(row) => Errand::Writing {
                        due: ms + delay,
                        row,
                    },
                    None => read(one, &self.table),
                };
            }
            Errand::Writing { due, row } if *due <= ms => {
                self.table.insert(row.instance.clone(), row.clone());
                one.instance.board.told(row);
                one.errand = read(one, &self.table);
            }
            Errand::Reading { due, rows } if *due <= ms => {
                let learnt = one.instance.hears(rows, now);
                one.next_read = ms + learnt.next_ms;
                one.errand = Errand::Sleeping {
                    until: ms + TICK_MS,
                };
            }
            _ => {}
        }
    }
}

/// The means of eight runs.
fn eight(full: Full, instances: usize, shares: bool) -> Outcome {
    let runs = [1, 2, 3, 4, 5, 6, 7, 8].map(|seed| World::new(full, instances, shares, seed).run());
    Outcome {
        refused: runs.iter().map(|out| out.refused).sum::<u64>() / 8,
        used: runs.iter().map(|out| out.used).sum::<u64>() / 8,
    }
}

#[test]
fn ten_instances_waste_no_more_calls_on_a_full_ptu_than_one() {
    let one = World::new(Full::Ptu, 1, false, 1).run();
    let apart = World::new(Full::Ptu, 10, false, 1).run();
    let together = World::new(Full::Ptu, 10, true, 1).run();
    assert!(apart.refused > one.refused * 3 / 2, "{apart:?}, {one:?}");
    assert!(together.refused < one.refused, "{together:?}, {one:?}");
    assert!(together.used >= 98, "{together:?}");
}

#[test]
fn one_instances_mark_saves_the_others_their_own() {
    let apart = World::new(Full::Quota, 10, false, 1).run();
    let together = World::new(Full::Quota, 10, true, 1).run();
    assert!(
        together.refused * 3 < apart.refused,
        "{together:?}, {apart:?}"
    );
    assert!(together.used >= 98, "{together:?}");
}

#[test]
fn one_instance_alone_is_not_changed_by_sharing() {
    for full in [Full::Ptu, Full::Quota] {
        let [before, after] = [false, true].map(|shares| World::new(full, 1, shares, 1).run());
        let difference = before.refused.abs_diff(after.refused);
        assert!(
            difference <= 1 + before.refused / 10,
            "{before:?}, {after:?}"
        );
        assert!(after.used.abs_diff(before.used) <= 1);
    }
}

/// The figures of docs/marks.md: the means of eight runs.
#[test]
#[ignore = "prints figures"]
#[expect(clippy::print_stdout, reason = "that is what it is for")]
fn figures() {
    for full in [Full::Ptu, Full::Quota] {
        println!("\n{full:?}: 429s / percent used\n\n| instances | apart | sharing |");
        for instances in [1, 3, 10] {
            let [apart, together] = [false, true].map(|shares| eight(full, instances, shares));
            println!(
                "| {instances} | {} / {} | {} / {} |",
                apart.refused, apart.used, together.refused, together.used
            );
        }
    }
}
