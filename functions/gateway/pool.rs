//! The deployments of each model by tier, and how one of a tier's is picked.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use super::deployment::{Deployment, DeploymentSpec};
use super::strategy::{Selection, Strategy};

#[cfg(test)]
mod tests;

/// Most deployments of one model: a call's notes of them fit a machine word.
pub const MAX_DEPLOYMENTS: usize = 64;

/// One in so many calls of [`Strategy::LowestLatency`] goes to any deployment, so that one that
/// was slow once is measured again.
const EXPLORE_ONE_IN: u32 = 50;

/// A set of a model's deployments, by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Set(u64);

impl Set {
    pub(super) const EMPTY: Self = Self(0);

    pub(super) const fn insert(&mut self, index: usize) {
        self.0 |= Self::bit(index);
    }

    pub(super) const fn remove(&mut self, index: usize) {
        self.0 &= !Self::bit(index);
    }

    pub(super) const fn contains(self, index: usize) -> bool {
        self.0 & Self::bit(index) != 0
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn len(self) -> u32 {
        self.0.count_ones()
    }

    const fn bit(index: usize) -> u64 {
        if index < MAX_DEPLOYMENTS {
            1 << index
        } else {
            0
        }
    }
}

/// Deployments of an earlier configuration, by what identifies one: its backend and its name there.
pub type Before = HashMap<(Arc<str>, Arc<str>), Arc<Deployment>>;

/// A deployment, which is one of `before` where that has it. One that is paid for otherwise is another.
fn go_on(before: &Before, spec: DeploymentSpec) -> Arc<Deployment> {
    let key = (Arc::clone(&spec.backend), Arc::clone(&spec.name));
    let before = before.get(&key).filter(|one| one.spec.kind == spec.kind);
    match before {
        Some(same) if same.spec == spec => Arc::clone(same),
        Some(before) => Arc::new(Deployment::after(before, spec)),
        None => Arc::new(Deployment::new(spec)),
    }
}

/// All models and their deployments.
#[derive(Debug, Default)]
pub struct Pool {
    models: HashMap<Arc<str>, Arc<ModelPool>>,
    deployments: Vec<Arc<Deployment>>,
}

impl Pool {
    /// The pool of `deployments`, each with the model it serves. `selection` says how a model's
    /// are picked. Of a model's deployments the first [`MAX_DEPLOYMENTS`] are used.
    pub fn new(
        deployments: impl IntoIterator<Item = (Arc<str>, DeploymentSpec)>,
        selection: impl Fn(&str) -> Selection,
    ) -> Self {
        Self::after(&HashMap::new(), deployments, selection)
    }

    /// As [`Self::new`], whose deployments go on from where those of `before` are, by their identity.
    pub fn after(
        before: &Before,
        deployments: impl IntoIterator<Item = (Arc<str>, DeploymentSpec)>,
        selection: impl Fn(&str) -> Selection,
    ) -> Self {
        let mut by_model: HashMap<Arc<str>, Vec<Arc<Deployment>>> = HashMap::new();
        let mut all = Vec::new();
        for (model, spec) in deployments {
            let deployment = go_on(before, spec);
            all.push(Arc::clone(&deployment));
            by_model.entry(model).or_default().push(deployment);
        }
        let models = by_model
            .into_iter()
            .map(|(name, members)| {
                let model = ModelPool::of(Arc::clone(&name), members, selection(&name));
                (name, Arc::new(model))
            })
            .collect();
        Self {
            models,
            deployments: all,
        }
    }

    /// A model's deployments.
    pub fn model(&self, name: &str) -> Option<&Arc<ModelPool>> {
        self.models.get(name)
    }

    /// All models, in no order.
    pub fn models(&self) -> impl Iterator<Item = &Arc<ModelPool>> {
        self.models.values()
    }

    /// All deployments, in the order of the configuration.
    pub fn deployments(&self) -> &[Arc<Deployment>] {
        &self.deployments
    }
}

/// A model's deployments, lower tiers first.
#[derive(Debug)]
pub struct ModelPool {
    name: Arc<str>,
    selection: Selection,
    members: Vec<Member>,
    /// Where each tier begins and ends in `members`.
    tiers: Vec<Tier>,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) deployment: Arc<Deployment>,
    /// Hash of the deployment's name and backend, for rendezvous hashing.
    hash: u64,
}

#[derive(Debug)]
pub(super) struct Tier {
    pub(super) members: std::ops::Range<usize>,
    /// Smooth weighted round-robin's current weights (as nginx does it), by place in the tier.
    turns: Mutex<Vec<i64>>,
}

impl ModelPool {
    /// A model and its deployments, of which the first [`MAX_DEPLOYMENTS`] are used.
    pub fn new(
        name: Arc<str>,
        specs: impl IntoIterator<Item = DeploymentSpec>,
        selection: Selection,
    ) -> Self {
        Self::after(&HashMap::new(), name, specs, selection)
    }

    /// As [`Self::new`], whose deployments go on from where those of `before` are.
    pub fn after(
        before: &Before,
        name: Arc<str>,
        specs: impl IntoIterator<Item = DeploymentSpec>,
        selection: Selection,
    ) -> Self {
        let deployments = specs.into_iter().map(|spec| go_on(before, spec));
        Self::of(name, deployments.collect(), selection)
    }

    fn of(name: Arc<str>, mut deployments: Vec<Arc<Deployment>>, selection: Selection) -> Self {
        deployments.truncate(MAX_DEPLOYMENTS);
        deployments.sort_by_key(|deployment| deployment.spec.tier);
        let mut tiers = Vec::new();
        let mut start = 0;
        for same in deployments.chunk_by(|a, b| a.spec.tier == b.spec.tier) {
            let end = start + same.len();
            tiers.push(Tier {
                members: start..end,
                turns: Mutex::new(vec![0; same.len()]),
            });
            start = end;
        }
        let members = deployments.into_iter().map(Member::new).collect();
        Self {
            name,
            selection,
            members,
            tiers,
        }
    }

    /// The model's name, as apps ask for it.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How its deployments are picked.
    pub const fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Its deployments, lower tiers first.
    pub fn deployments(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        self.members.iter().map(|member| &member.deployment)
    }

    pub(super) fn tiers(&self) -> &[Tier] {
        &self.tiers
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (usize, &Arc<Deployment>)> {
        let deployments = self.members.iter().map(|member| &member.deployment);
        deployments.enumerate()
    }

    pub(super) fn deployment(&self, index: usize) -> Option<&Arc<Deployment>> {
        self.members.get(index).map(|member| &member.deployment)
    }

    /// The deployments of a tier, with their index.
    pub(super) fn of_tier(&self, tier: &Tier) -> impl Iterator<Item = (usize, &Arc<Deployment>)> {
        self.every(tier)
            .map(|(index, member)| (index, &member.deployment))
    }

    /// Picks one of `available`, which are all of one tier, by the model's strategy.
    pub(super) fn pick(
        &self,
        tier: &Tier,
        available: Set,
        hash: u64,
        random: &mut fastrand::Rng,
    ) -> Option<usize> {
        if available.len() <= 1 {
            return self.among(tier, available).next().map(|(index, _)| index);
        }
        match self.selection.strategy {
            Strategy::WeightedRoundRobin => self.next_in_turn(tier, available),
            Strategy::Random => self.any(tier, available, random),
            Strategy::LeastInFlight => self.least_in_flight(tier, available, random),
            Strategy::LowestLatency => self.lowest_latency(tier, available, random),
            Strategy::Hash => self.by_hash(tier, available, hash, random),
        }
    }

    fn among(&self, tier: &Tier, set: Set) -> impl Iterator<Item = (usize, &Member)> {
        self.every(tier)
            .filter(move |(index, _)| set.contains(*index))
    }

    fn every(&self, tier: &Tier) -> impl Iterator<Item = (usize, &Member)> {
        let members = self.members.get(tier.members.clone()).unwrap_or_default();
        tier.members.clone().zip(members)
    }

    fn next_in_turn(&self, tier: &Tier, available: Set) -> Option<usize> {
        let mut turns = tier.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let mut total = 0;
        let mut best: Option<(i64, usize)> = None;
        for (turn, (index, member)) in turns.iter_mut().zip(self.every(tier)) {
            if !available.contains(index) {
                continue;
            }
            *turn += i64::from(member.weight());
            total += i64::from(member.weight());
            if best.is_none_or(|(most, _)| *turn > most) {
                best = Some((*turn, index));
            }
        }
        let (_, index) = best?;
        if let Some(turn) = turns.get_mut(index - tier.members.start) {
            *turn -= total;
        }
        Some(index)
    }

    fn any(&self, tier: &Tier, available: Set, random: &mut fastrand::Rng) -> Option<usize> {
        let weights = || {
            self.among(tier, available)
                .map(|(_, m)| u64::from(m.weight()))
        };
        let mut draw = random.u64(..weights().sum::<u64>().max(1));
        for (index, member) in self.among(tier, available) {
            let weight = u64::from(member.weight());
            if draw < weight {
                return Some(index);
            }
            draw -= weight;
        }
        None
    }

    fn least_in_flight(
        &self,
        tier: &Tier,
        available: Set,
        random: &mut fastrand::Rng,
    ) -> Option<usize> {
        // Load a/b < c/d as a*d < c*b, so that weights count and no division is needed.
        let mut best: Option<(u64, u64)> = None;
        let mut least = Set::EMPTY;
        for (index, member) in self.among(tier, available) {
            let load = u64::from(member.deployment.in_flight());
            let weight = u64::from(member.weight());
            let order = best.map(|(l, w)| (load * w).cmp(&(l * weight)));
            match order {
                Some(std::cmp::Ordering::Greater) => continue,
                Some(std::cmp::Ordering::Equal) => {}
                Some(std::cmp::Ordering::Less) | None => {
                    best = Some((load, weight));
                    least = Set::EMPTY;
                }
            }
            least.insert(index);
        }
        self.any(tier, least, random)
    }

    fn lowest_latency(
        &self,
        tier: &Tier,
        available: Set,
        random: &mut fastrand::Rng,
    ) -> Option<usize> {
        let mut unmeasured = Set::EMPTY;
        let mut fastest = u32::MAX;
        for (index, member) in self.among(tier, available) {
            match member.deployment.latency_us() {
                Some(us) => fastest = fastest.min(us),
                None => unmeasured.insert(index),
            }
        }
        if !unmeasured.is_empty() {
            return self.any(tier, unmeasured, random);
        }
        if random.u32(..EXPLORE_ONE_IN) == 0 {
            return self.any(tier, available, random);
        }
        let range_us = self.selection.latency_range_ms.saturating_mul(1000);
        let limit = fastest.saturating_add(range_us);
        let mut fast = Set::EMPTY;
        for (index, member) in self.among(tier, available) {
            if member.deployment.latency_us().is_none_or(|us| us <= limit) {
                fast.insert(index);
            }
        }
        self.any(tier, fast, random)
    }

    /// Weighted rendezvous hashing with bounded load: the key's first choice, unless that has
    /// more than its stated share of the calls in flight; then its second, and so on.
    fn by_hash(
        &self,
        tier: &Tier,
        available: Set,
        hash: u64,
        random: &mut fastrand::Rng,
    ) -> Option<usize> {
        let (mut calls, mut weights) = (1u64, 0u64);
        for (_, member) in self.among(tier, available) {
            calls += u64::from(member.deployment.in_flight());
            weights += u64::from(member.weight());
        }
        let mut left = available;
        while let Some((index, member)) = self.first_choice(tier, left, hash) {
            let share =
                calls * u64::from(member.weight()) * u64::from(self.selection.hash_load_percent);
            let bound = share.div_ceil(weights.max(1) * 100);
            if u64::from(member.deployment.in_flight()) < bound {
                return Some(index);
            }
            left.remove(index);
        }
        self.least_in_flight(tier, available, random)
    }

    fn first_choice(&self, tier: &Tier, set: Set, hash: u64) -> Option<(usize, &Member)> {
        self.among(tier, set)
            .max_by(|(_, a), (_, b)| a.score(hash).total_cmp(&b.score(hash)))
    }
}

impl Member {
    fn new(deployment: Arc<Deployment>) -> Self {
        let mut hasher = DefaultHasher::new();
        (&deployment.spec.backend, &deployment.spec.name).hash(&mut hasher);
        Self {
            hash: hasher.finish(),
            deployment,
        }
    }

    fn weight(&self) -> u32 {
        self.deployment.spec.weight.max(1)
    }

    /// Rendezvous hashing's score, with weights: -w / ln(u), u uniform in (0, 1)
    /// (Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005).
    fn score(&self, hash: u64) -> f64 {
        let mixed = mix(self.hash ^ hash);
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let uniform = ((mixed >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -f64::from(self.weight()) / uniform.ln()
    }
}

/// SplitMix64's finalizer: every input bit moves every output bit.
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The hash of a key for [`Strategy::Hash`]. The same in every process of this program.
pub fn hash_key(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
