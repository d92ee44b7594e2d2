//! What a call does next: try a deployment, wait, or give up.

use std::sync::Arc;

use super::app::App;
use super::deployment::{Deployment, MarkReason};
use super::event::Kind;
use super::pool::{ModelPool, Set, Tier};
use super::priority::Priority;
use super::time::Timestamp;

#[cfg(test)]
mod tests;

/// What bounds a call, from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest wait for marked deployments to come back, ms.
    pub wait_budget_ms: u64,
    /// Most attempts.
    pub max_attempts: u32,
    /// From the call's arrival to the last moment at which an attempt may begin, ms.
    pub deadline_ms: u64,
    /// How long a deployment that failed takes to get its whole share back, ms.
    pub ramp_ms: u64,
}

/// Which deployments a call may use, and which it would rather.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller<'a> {
    /// The app that calls; `None`: one that may use everything.
    pub app: Option<&'a App>,
    /// How urgent the call is.
    pub priority: Priority,
    /// The one kind of deployment that it goes to; `None`: any.
    pub only: Option<Kind>,
    /// The one backend that has what the call names.
    pub pinned: Option<&'a str>,
    /// The backends that it keeps to; none: all.
    pub homes: &'a [Arc<str>],
    /// The gateway's own region.
    pub region: Option<&'a str>,
    /// Hash of what [`super::strategy::HashOn`] names.
    pub hash: u64,
}

impl Caller<'_> {
    fn may_use(&self, deployment: &Deployment) -> bool {
        let backend = &deployment.spec.backend;
        self.pinned.is_none_or(|pinned| pinned == &**backend)
            && (self.homes.is_empty() || self.homes.contains(backend))
            && self.only.is_none_or(|kind| kind == deployment.spec.kind)
            && self.app.is_none_or(|app| app.may_use(&deployment.spec))
    }

    fn owns(&self, deployment: &Deployment) -> bool {
        self.app
            .is_some_and(|app| deployment.spec.is_own_of(&app.name))
    }
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Call this deployment.
    Try(Arc<Deployment>),
    /// Ask again after so many milliseconds.
    Wait(u64),
    /// No more can be done.
    GiveUp(GiveUp),
}

/// Why a call was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// The caller may use no deployment of this model.
    NoDeployment,
    /// All are full; the first comes back after so many milliseconds.
    AllThrottled {
        /// Milliseconds until then.
        retry_after_ms: u64,
    },
    /// All that could be tried failed.
    AllFailed,
    /// The deadline passed.
    DeadlinePassed,
}

/// One call's way through the deployments.
#[derive(Debug)]
pub struct Plan {
    started: Timestamp,
    attempts: u32,
    waited_ms: u64,
    /// Throttled this call since the last wait.
    throttled: Set,
    /// Failed this call.
    failed: Set,
    passed_ptu: bool,
}

impl Plan {
    /// A plan for a call that came in at `started`.
    pub const fn new(started: Timestamp) -> Self {
        Self {
            started,
            attempts: 0,
            waited_ms: 0,
            throttled: Set::EMPTY,
            failed: Set::EMPTY,
            passed_ptu: false,
        }
    }

    /// Attempts so far.
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether a full PTU deployment was passed over on the way.
    pub const fn passed_ptu(&self) -> bool {
        self.passed_ptu
    }

    /// Notes how the attempt at `deployment` failed.
    pub fn failed(&mut self, model: &ModelPool, deployment: &Arc<Deployment>, reason: MarkReason) {
        let found = model
            .members()
            .find(|(_, member)| Arc::ptr_eq(member, deployment));
        if let Some((index, _)) = found {
            match reason {
                MarkReason::Throttled => self.throttled.insert(index),
                MarkReason::Failed | MarkReason::Misconfigured => self.failed.insert(index),
            }
        }
    }

    /// The next step at `now`.
    ///
    /// In this order: an available deployment of the first tier that has one (waiting for a
    /// throttled one where the model's `spill_after_ms` says so); one that throttled this call
    /// and is back; one whose failure is all that speaks against it; a wait within the budget.
    /// Within a tier the app's own deployments go first, then those in the gateway's region.
    pub fn next(
        &mut self,
        model: &ModelPool,
        caller: &Caller<'_>,
        limits: &Limits,
        now: Timestamp,
        random: &mut fastrand::Rng,
    ) -> Step {
        if now.ms_since(self.started) >= limits.deadline_ms {
            return Step::GiveUp(GiveUp::DeadlinePassed);
        }
        let mut usable = Set::EMPTY;
        for (index, deployment) in model.members() {
            if caller.may_use(deployment) {
                usable.insert(index);
            }
        }
        if usable.is_empty() {
            return Step::GiveUp(GiveUp::NoDeployment);
        }
        let view = View {
            model,
            caller,
            usable,
            now,
        };
        if self.attempts < limits.max_attempts
            && let Some(step) = self.try_or_hold(&view, limits, random)
        {
            return step;
        }
        self.wait_or_give_up(&view, limits)
    }

    fn try_or_hold(
        &mut self,
        view: &View<'_>,
        limits: &Limits,
        random: &mut fastrand::Rng,
    ) -> Option<Step> {
        let draw = random.u32(..1000);
        let fresh = |plan: &Self, index: usize, d: &Deployment| {
            !plan.failed.contains(index)
                && !plan.throttled.contains(index)
                && d.admits(view.now, limits.ramp_ms, draw)
        };
        for tier in view.model.tiers() {
            let set = view.set(tier, |index, d| fresh(self, index, d));
            if !set.is_empty() {
                return self.take(view, tier, set, random);
            }
            if let Some(ms) = self.hold(view, tier, limits) {
                return Some(self.wait(ms));
            }
            self.passed_ptu |= view.has_full_ptu(tier);
        }
        let unmarked = |_: usize, d: &Deployment| d.mark(view.now).is_none();
        let broken = |wanted: MarkReason| {
            move |_: usize, d: &Deployment| d.mark(view.now).is_some_and(|m| m.reason == wanted)
        };
        let failed = self.failed;
        self.first(view, random, |i, d| !failed.contains(i) && unmarked(i, d))
            .or_else(|| {
                let was = broken(MarkReason::Failed);
                self.first(view, random, |i, d| !failed.contains(i) && was(i, d))
            })
            .or_else(|| {
                let was = broken(MarkReason::Misconfigured);
                self.first(view, random, |i, d| !failed.contains(i) && was(i, d))
            })
    }

    /// The first tier that has one that is `wanted`.
    fn first(
        &mut self,
        view: &View<'_>,
        random: &mut fastrand::Rng,
        wanted: impl Fn(usize, &Deployment) -> bool,
    ) -> Option<Step> {
        let (tier, set) = view
            .model
            .tiers()
            .iter()
            .map(|tier| (tier, view.set(tier, &wanted)))
            .find(|(_, set)| !set.is_empty())?;
        self.take(view, tier, set, random)
    }

    fn take(
        &mut self,
        view: &View<'_>,
        tier: &Tier,
        set: Set,
        random: &mut fastrand::Rng,
    ) -> Option<Step> {
        let set = view.nearest(tier, view.own(tier, set));
        let index = view.model.pick(tier, set, view.caller.hash, random)?;
        self.attempts += 1;
        view.model
            .deployment(index)
            .map(|d| Step::Try(Arc::clone(d)))
    }

    /// How long to wait for a throttled PTU of this tier instead of paying for the next tier.
    fn hold(&self, view: &View<'_>, tier: &Tier, limits: &Limits) -> Option<u64> {
        let patience = view.model.selection().spill_after_ms;
        if patience <= self.waited_ms {
            return None;
        }
        let ptu = |d: &Deployment| d.spec.kind == Kind::Ptu;
        let ms = view.back_after(tier.members.clone(), ptu)?;
        let budget = patience
            .min(limits.wait_budget_ms)
            .checked_sub(self.waited_ms)?;
        (ms <= budget && self.is_in_time(view, limits, ms)).then_some(ms)
    }

    fn is_in_time(&self, view: &View<'_>, limits: &Limits, ms: u64) -> bool {
        view.now.plus_ms(ms).ms_since(self.started) < limits.deadline_ms
    }

    const fn wait(&mut self, ms: u64) -> Step {
        self.waited_ms = self.waited_ms.saturating_add(ms);
        self.throttled = Set::EMPTY;
        Step::Wait(ms)
    }

    fn wait_or_give_up(&mut self, view: &View<'_>, limits: &Limits) -> Step {
        let Some(ms) = view.back_after(0..usize::MAX, |_| true) else {
            // Full a moment ago and back by now: the client may come back at once.
            return Step::GiveUp(if self.throttled.is_empty() {
                GiveUp::AllFailed
            } else {
                GiveUp::AllThrottled { retry_after_ms: 1 }
            });
        };
        let budget = limits.wait_budget_ms.saturating_sub(self.waited_ms);
        let may_try = self.attempts < limits.max_attempts;
        if may_try && ms <= budget && self.is_in_time(view, limits, ms) {
            return self.wait(ms);
        }
        Step::GiveUp(GiveUp::AllThrottled { retry_after_ms: ms })
    }
}

/// A model's deployments as one call sees them now.
struct View<'a> {
    model: &'a ModelPool,
    caller: &'a Caller<'a>,
    usable: Set,
    now: Timestamp,
}

impl View<'_> {
    fn set(&self, tier: &Tier, wanted: impl Fn(usize, &Deployment) -> bool) -> Set {
        let mut set = Set::EMPTY;
        for (index, deployment) in self.model.of_tier(tier) {
            if self.usable.contains(index) && wanted(index, deployment) {
                set.insert(index);
            }
        }
        set
    }

    /// Those of `set` that are the app's own, where there are any: what an app has for itself
    /// is used up before it takes what it shares.
    fn own(&self, tier: &Tier, set: Set) -> Set {
        let own = self.set(tier, |index, d| set.contains(index) && self.caller.owns(d));
        if own.is_empty() { set } else { own }
    }

    /// Those of `set` in the gateway's region, where the model asks for that and there are any.
    fn nearest(&self, tier: &Tier, set: Set) -> Set {
        let Some(region) = self
            .caller
            .region
            .filter(|_| self.model.selection().prefer_region)
        else {
            return set;
        };
        let near = self.set(tier, |index, d| {
            set.contains(index) && d.spec.region.as_deref() == Some(region)
        });
        if near.is_empty() { set } else { near }
    }

    fn has_full_ptu(&self, tier: &Tier) -> bool {
        let full = |d: &Deployment| {
            let mark = d.mark(self.now);
            d.spec.kind == Kind::Ptu && mark.is_some_and(|m| m.reason == MarkReason::Throttled)
        };
        !self.set(tier, |_, d| full(d)).is_empty()
    }

    /// Milliseconds until the first throttled one of `range` that is `wanted` comes back.
    fn back_after(
        &self,
        range: std::ops::Range<usize>,
        wanted: impl Fn(&Deployment) -> bool,
    ) -> Option<u64> {
        self.model
            .members()
            .filter(|(index, d)| range.contains(index) && self.usable.contains(*index) && wanted(d))
            .filter_map(|(_, d)| d.mark(self.now))
            .filter(|mark| mark.reason == MarkReason::Throttled)
            .map(|mark| mark.until.ms_since(self.now))
            .min()
    }
}
