//! Instances that share one limit, in simulated time: how exact it is, and how much of it is used.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use super::super::super::limit::{Allowance, AppLimits, Reservation};
use super::*;

/// Calls a minute that the limit allows, when each uses what it does on average.
const CALLS: u64 = 600;
const STEP_MS: u64 = 20;
const MINUTES: u64 = 20;
/// How long an instance lives on average where they come and go.
const LIFE_MS: u64 = 180_000;
/// How long the load that wanders stays with an instance.
const STAY_MS: u64 = 90_000;
/// Half the period of a load that is on and off, and of the times when all instances are replaced.
const PHASE_MS: u64 = 120_000;
/// Tokens that a call may use at most, which is its estimate, and that it uses on average.
const ESTIMATE: u64 = 1_000;
const AVERAGE: u64 = 600;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limited {
    Requests,
    /// Estimated at 1.67 times what they turn out to be, some four seconds later.
    Tokens,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// All instances get the same.
    Even,
    /// One gets nine tenths.
    Skewed,
    /// One gets nine tenths, another one from time to time.
    Wandering,
    /// Two minutes nothing, two minutes all, evenly.
    OnAndOff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fleet {
    Steady,
    /// Instances die, and as many come.
    ComingAndGoing,
    /// All die at once every four minutes, and as many others come.
    Replaced,
}

#[derive(Clone, Copy, Debug)]
struct Scene {
    limited: Limited,
    /// The load in percent of the limit.
    percent: u64,
    fleet: Fleet,
    load: Load,
    instances: usize,
}

impl Scene {
    /// All loads and fleets, with 1, 3 and 10 instances.
    fn all(limited: Limited, percent: u64) -> Vec<Self> {
        let mut scenes = Vec::new();
        for fleet in [Fleet::Steady, Fleet::ComingAndGoing, Fleet::Replaced] {
            for load in [Load::Even, Load::Skewed, Load::Wandering, Load::OnAndOff] {
                scenes.extend([1, 3, 10].map(|instances| Self {
                    limited,
                    percent,
                    fleet,
                    load,
                    instances,
                }));
            }
        }
        scenes
    }

    /// The limit a minute.
    fn limit(&self) -> u64 {
        match self.limited {
            Limited::Requests => CALLS,
            Limited::Tokens => CALLS * AVERAGE,
        }
    }

    fn run(self, seed: u64) -> Outcome {
        let mut world = World::new(self, seed);
        for ms in (0..MINUTES * 60_000).step_by(20) {
            world.step(ms);
        }
        world.outcome()
    }
}

/// What came out, in per mille of the limit.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    /// The fullest 60 s.
    most: u64,
    /// All the time, or half of it where the load is half the time.
    mean: u64,
    /// Calls refused, in per mille of the calls that came.
    refused: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |per_mille: u64| format!("{}.{}", per_mille / 10, per_mille % 10);
        let [most, mean, refused] = [self.most, self.mean, self.refused].map(percent);
        write!(f, "{most} / {mean} / {refused}")
    }
}

struct Instance {
    id: String,
    limits: Arc<AppLimits>,
    next_beat: u64,
    /// A beat whose row is on its way, and when it will be in the table.
    writing: Option<(u64, Beat)>,
    running: VecDeque<(u64, u64, Reservation)>,
}

struct World {
    scene: Scene,
    random: fastrand::Rng,
    table: BTreeMap<String, Row>,
    instances: Vec<Instance>,
    born: usize,
    /// The instance that gets most of a load that is not even.
    hot: String,
    now_ms: u64,
    /// What the calls admitted in a second really used.
    used: Vec<u64>,
    offered: u64,
    refused: u64,
}

impl World {
    fn new(scene: Scene, seed: u64) -> Self {
        let mut world = Self {
            scene,
            random: fastrand::Rng::with_seed(seed),
            table: BTreeMap::new(),
            instances: Vec::new(),
            born: 0,
            hot: String::new(),
            now_ms: 0,
            used: Vec::new(),
            offered: 0,
            refused: 0,
        };
        for _ in 0..scene.instances {
            world.birth();
        }
        world
    }

    fn step(&mut self, ms: u64) {
        self.now_ms = ms;
        if ms.is_multiple_of(1000) {
            self.used.push(0);
        }
        if self.scene.load == Load::Wandering && ms.is_multiple_of(STAY_MS) {
            self.hot.clear();
        }
        self.change_fleet();
        self.beats();
        self.settle();
        if self.scene.load == Load::OnAndOff && (ms / PHASE_MS).is_multiple_of(2) {
            return;
        }
        // Ten chances of a call in each step: as good as calls at random.
        let steps_a_minute = 60_000 / STEP_MS;
        for _ in 0..10 {
            let draw = self.random.u64(..10 * 100 * steps_a_minute);
            if draw < CALLS * self.scene.percent {
                self.call();
            }
        }
    }

    fn birth(&mut self) {
        let limited = |sort| (self.scene.limited == sort).then(|| self.scene.limit());
        let allowance = Allowance {
            requests_per_minute: limited(Limited::Requests),
            tokens_per_minute: limited(Limited::Tokens),
            in_flight: None,
        };
        let now = at(self.now_ms);
        let limits = AppLimits::new("portal".into(), allowance, [], now).unwrap();
        limits.set_share(&limit(), UNKNOWN, now);
        self.born += 1;
        let next_beat = self.now_ms + self.table_ms();
        self.instances.push(Instance {
            id: format!("instance-{}", self.born),
            limits: Arc::new(limits),
            next_beat,
            writing: None,
            running: VecDeque::new(),
        });
    }

    /// The host kills without warning: the row stays, the calls are lost.
    fn death(&mut self) {
        let index = self.random.usize(..self.instances.len());
        self.instances.swap_remove(index);
        if self.instances.is_empty() {
            self.birth();
        }
    }

    fn change_fleet(&mut self) {
        match self.scene.fleet {
            Fleet::Steady => {}
            Fleet::ComingAndGoing => {
                let steps = LIFE_MS / STEP_MS;
                if self.random.u64(..steps) < self.scene.instances as u64 {
                    self.birth();
                }
                if self.random.u64(..steps) < self.instances.len() as u64 {
                    self.death();
                }
            }
            Fleet::Replaced => {
                if self.now_ms % (2 * PHASE_MS) == 2 * PHASE_MS - 1_000 {
                    self.instances.clear();
                    for _ in 0..self.scene.instances {
                        self.birth();
                    }
                }
            }
        }
    }

    /// What the table takes for an answer: mostly some ten milliseconds, now and then two seconds.
    fn table_ms(&mut self) -> u64 {
        match self.random.u32(..50) {
            0 => 2_000,
            _ => self.random.u64(5..100),
        }
    }

    fn beats(&mut self) {
        for index in 0..self.instances.len() {
            let delay = self.table_ms();
            let jitter = self.random.u64(..300);
            let now = at(self.now_ms);
            let instance = &mut self.instances[index];
            match instance.writing.take() {
                Some((due, beat)) if due > self.now_ms => {
                    instance.writing = Some((due, beat));
                    continue;
                }
                Some((_, beat)) => {
                    self.table.insert(instance.id.clone(), beat.row);
                    for (limit, share) in &beat.raised {
                        instance.limits.set_share(limit, *share, now);
                    }
                    for id in &beat.forgotten {
                        self.table.remove(id);
                    }
                }
                None => {}
            }
            if self.now_ms >= instance.next_beat {
                let rows: Vec<Row> = self.table.values().cloned().collect();
                let beat = beat(&instance.id, &rows, &instance.limits.measure(now), now);
                for (limit, share) in &beat.lowered {
                    instance.limits.set_share(limit, *share, now);
                }
                instance.next_beat = self.now_ms + beat.next_ms + jitter;
                instance.writing = Some((self.now_ms + delay, beat));
            }
        }
    }

    fn settle(&mut self) {
        let now_ms = self.now_ms;
        for instance in &mut self.instances {
            let running = &mut instance.running;
            running.make_contiguous().sort_by_key(|(end, ..)| *end);
            while let Some((_, tokens, reservation)) =
                running.pop_front_if(|(end, ..)| *end <= now_ms)
            {
                reservation.settle(tokens, at(now_ms));
            }
        }
    }

    fn call(&mut self) {
        let index = match self.scene.load {
            Load::Skewed | Load::Wandering if self.random.u32(..10) < 9 => self.hot(),
            _ => self.random.usize(..self.instances.len()),
        };
        let tokens = self.random.u64(2 * AVERAGE - ESTIMATE..=ESTIMATE);
        let end = self.now_ms + self.random.u64(300..8_000);
        let instance = &mut self.instances[index];
        let admitted = instance.limits.admit("gpt-4o", ESTIMATE, at(self.now_ms));
        self.offered += 1;
        match admitted {
            Ok(admitted) => {
                let call = (end, tokens, admitted.reservation);
                instance.running.push_back(call);
                *self.used.last_mut().unwrap() += match self.scene.limited {
                    Limited::Requests => 1,
                    Limited::Tokens => tokens,
                };
            }
            Err(_) => self.refused += 1,
        }
    }

    fn hot(&mut self) -> usize {
        let hot = self.instances.iter().position(|one| one.id == self.hot);
        hot.unwrap_or_else(|| {
            let index = self.random.usize(..self.instances.len());
            self.hot = self.instances[index].id.clone();
            index
        })
    }

    fn outcome(&self) -> Outcome {
        let minutes = self.used.windows(60).map(|seconds| seconds.iter().sum());
        let most: u64 = minutes.max().unwrap();
        let used: u64 = self.used.iter().sum();
        let half = self.scene.load == Load::OnAndOff;
        let loaded = if half { MINUTES / 2 } else { MINUTES };
        Outcome {
            most: most * 1000 / self.scene.limit(),
            mean: used * 1000 / (self.scene.limit() * loaded),
            refused: self.refused * 1000 / self.offered,
        }
    }
}

#[test]
fn instances_together_stay_within_a_tenth_of_the_limit_and_use_nine_tenths() {
    for scene in Scene::all(Limited::Requests, 300) {
        let out = scene.run(1);
        assert!(out.most <= 1_100 && out.mean >= 900, "{scene:?}: {out:?}");
    }
}

/// What is in flight counts as its estimate, here two thirds more than it is.
#[test]
fn with_high_estimates_instances_use_less_of_the_limit() {
    for scene in Scene::all(Limited::Tokens, 300) {
        let out = scene.run(1);
        assert!(out.most <= 1_100 && out.mean >= 850, "{scene:?}: {out:?}");
    }
}

#[test]
fn a_load_well_below_the_limit_is_not_refused() {
    for scene in Scene::all(Limited::Requests, 70) {
        if scene.fleet == Fleet::Steady && scene.load != Load::Wandering {
            let out = scene.run(1);
            assert!(out.refused <= 1, "{scene:?}: {out:?}");
        }
    }
}

/// The figures of docs/limits.md: of eight runs the fullest minute, the mean of the means, and the
/// mean of what was refused.
#[test]
#[ignore = "prints figures"]
#[expect(clippy::print_stdout, reason = "that is what it is for")]
fn figures() {
    let cases = [
        (Limited::Requests, 300),
        (Limited::Requests, 1000),
        (Limited::Requests, 70),
        (Limited::Tokens, 300),
    ];
    for (limited, percent) in cases {
        println!("\n{limited:?}, load {percent} %\n\n| instances | load | 1 | 3 | 10 |");
        for row in Scene::all(limited, percent).chunks(3) {
            let cells: Vec<String> = row.iter().map(|scene| eight(*scene).to_string()).collect();
            println!(
                "| {:?} | {:?} | {} |",
                row[0].fleet,
                row[0].load,
                cells.join(" | ")
            );
        }
    }
}

fn eight(scene: Scene) -> Outcome {
    let runs = [1, 2, 3, 4, 5, 6, 7, 8].map(|seed| scene.run(seed));
    Outcome {
        most: runs.iter().map(|out| out.most).max().unwrap(),
        mean: runs.iter().map(|out| out.mean).sum::<u64>() / 8,
        refused: runs.iter().map(|out| out.refused).sum::<u64>() / 8,
    }
}
