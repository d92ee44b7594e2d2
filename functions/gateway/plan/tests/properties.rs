//! What holds for every call, whatever the deployments answer and other calls mark meanwhile.

use proptest::prelude::*;
use proptest::strategy::Strategy as Generator;

use super::super::super::app::App;
use super::super::super::priority::Priority;
use super::super::super::strategy::{Selection, Strategy};
use super::*;

/// A deployment, and the mark that it has when the call comes in.
#[derive(Clone, Debug)]
struct Member {
    tier: u8,
    kind: Kind,
    weight: u32,
    region: bool,
    mark: Option<(MarkReason, u64)>,
}

/// What an attempt ends in, how long it takes, and what another call marks meanwhile.
#[derive(Clone, Debug)]
struct Answer {
    failure: Option<(MarkReason, u64)>,
    took_ms: u64,
    elsewhere: Option<(usize, MarkReason, u64)>,
}

#[derive(Clone, Debug)]
struct World {
    members: Vec<Member>,
    selection: Selection,
    limits: Limits,
    allowed: Option<Vec<usize>>,
    pinned: Option<usize>,
    prefers: bool,
    answers: Vec<Answer>,
    seed: u64,
}

fn reason() -> impl Generator<Value = MarkReason> {
    prop_oneof![
        3 => Just(MarkReason::Throttled),
        2 => Just(MarkReason::Failed),
        1 => Just(MarkReason::Misconfigured),
    ]
}

fn kind() -> impl Generator<Value = Kind> {
    prop_oneof![Just(Kind::Ptu), Just(Kind::Payg)]
}

/// From a millisecond to a minute, short ones as often as long ones.
fn mark_ms() -> impl Generator<Value = u64> {
    prop_oneof![1u64..50, 50u64..3000, 3000u64..60_000]
}

fn members() -> impl Generator<Value = Vec<Member>> {
    let mark = prop::option::weighted(0.3, (reason(), mark_ms()));
    let member = (1u8..4, kind(), 1u32..10, any::<bool>(), mark).prop_map(
        |(tier, kind, weight, region, mark)| Member {
            tier,
            kind,
            weight,
            region,
            mark,
        },
    );
    prop::collection::vec(member, 1..9)
}

fn selection() -> impl Generator<Value = Selection> {
    let strategy = prop_oneof![
        Just(Strategy::WeightedRoundRobin),
        Just(Strategy::Random),
        Just(Strategy::LeastInFlight),
        Just(Strategy::LowestLatency),
        Just(Strategy::Hash),
    ];
    (strategy, prop_oneof![Just(0), 1u64..4000]).prop_map(|(strategy, spill_after_ms)| Selection {
        strategy,
        spill_after_ms,
        prefer_region: true,
        ..Selection::default()
    })
}

fn limits() -> impl Generator<Value = Limits> {
    (0u64..8000, 1u32..9, 1u64..30_000, 0u64..20_000).prop_map(
        |(wait_budget_ms, max_attempts, deadline_ms, ramp_ms)| Limits {
            wait_budget_ms,
            max_attempts,
            deadline_ms,
            ramp_ms,
        },
    )
}

fn answers() -> impl Generator<Value = Vec<Answer>> {
    let failure = prop::option::weighted(0.95, (reason(), mark_ms()));
    let elsewhere = prop::option::weighted(0.3, (0usize..8, reason(), mark_ms()));
    let took = prop_oneof![3 => Just(0u64), 2 => 1u64..200, 1 => 200u64..10_000];
    let answer = (failure, took, elsewhere).prop_map(|(failure, took_ms, elsewhere)| Answer {
        failure,
        took_ms,
        elsewhere,
    });
    prop::collection::vec(answer, 0..12)
}

fn world() -> impl Generator<Value = World> {
    let caller = (
        prop::option::weighted(0.3, prop::collection::vec(0usize..8, 0..5)),
        prop::option::weighted(0.1, 0usize..8),
        any::<bool>(),
    );
    (
        members(),
        selection(),
        limits(),
        caller,
        answers(),
        any::<u64>(),
    )
        .prop_map(
            |(members, selection, limits, (allowed, pinned, prefers), answers, seed)| World {
                members,
                selection,
                limits,
                allowed,
                pinned,
                prefers,
                answers,
                seed,
            },
        )
}

fn name(index: usize) -> Arc<str> {
    format!("b{index}").into()
}

impl World {
    fn model(&self) -> ModelPool {
        let specs = self.members.iter().enumerate().map(|(index, member)| {
            let mut spec = spec(&name(index), member.kind, member.tier);
            spec.weight = member.weight;
            spec.region = member.region.then(|| "near".into());
            spec
        });
        model(specs.collect(), self.selection.clone())
    }

    /// A deployment by its place in `members`.
    fn find<'m>(&self, model: &'m ModelPool, index: usize) -> Option<&'m Arc<Deployment>> {
        let backend = name(index);
        model.deployments().find(|d| d.spec.backend == backend)
    }

    fn may_use(&self, deployment: &Deployment) -> bool {
        let is = |index: &usize| name(*index) == deployment.spec.backend;
        self.pinned.as_ref().is_none_or(is)
            && self.allowed.as_ref().is_none_or(|all| all.iter().any(is))
    }

    /// Plays the call to its end and checks each of its steps.
    fn play(&self) -> Result<(), TestCaseError> {
        let model = self.model();
        for (index, member) in self.members.iter().enumerate() {
            if let (Some((reason, ms)), Some(d)) = (member.mark, self.find(&model, index)) {
                d.set_mark(reason, ms, at(0));
            }
        }
        let allowed: Option<Vec<_>> = self
            .allowed
            .as_ref()
            .map(|all| all.iter().map(|index| name(*index)).collect());
        let pinned = self.pinned.map(name);
        let app = App {
            backends: allowed,
            ..App::unrestricted("app")
        };
        let caller = Caller {
            app: Some(&app),
            priority: Priority::High,
            only: None,
            pinned: pinned.as_deref(),
            homes: &[],
            region: self.prefers.then_some("near"),
            hash: self.seed,
        };
        let mut plan = Plan::new(at(0));
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut answers = self.answers.iter();
        let mut call = Progress::default();
        loop {
            let step = plan.next(&model, &caller, &self.limits, at(call.now), &mut random);
            match step {
                Step::Wait(ms) => {
                    self.check_wait(&model, &call, ms)?;
                    call.waited += ms;
                    call.now += ms;
                    call.throttled.clear();
                }
                Step::GiveUp(why) => return self.check_end(&model, &call, why),
                Step::Try(deployment) => {
                    call.attempts += 1;
                    self.check_try(&model, &call, &deployment)?;
                    let Some(answer) = answers.next() else {
                        return Ok(());
                    };
                    call.now += answer.took_ms;
                    if let Some((index, reason, ms)) = answer.elsewhere
                        && let Some(other) = self.find(&model, index)
                    {
                        other.set_mark(reason, ms, at(call.now));
                    }
                    let Some((reason, ms)) = answer.failure else {
                        return Ok(());
                    };
                    deployment.set_mark(reason, ms, at(call.now));
                    plan.failed(&model, &deployment, reason);
                    call.note(&deployment, reason);
                }
            }
        }
    }

    fn check_wait(&self, model: &ModelPool, call: &Progress, ms: u64) -> Result<(), TestCaseError> {
        prop_assert!(ms > 0, "a wait of no time would never end");
        prop_assert!(call.waited + ms <= self.limits.wait_budget_ms);
        prop_assert!(call.now + ms < self.limits.deadline_ms, "past the deadline");
        let back = self.usable(model).any(|d| {
            let mark = d.mark(at(call.now));
            mark.is_some_and(|m| m.reason == MarkReason::Throttled && m.until == at(call.now + ms))
        });
        prop_assert!(back, "it waits for nobody");
        Ok(())
    }

    fn check_try(
        &self,
        model: &ModelPool,
        call: &Progress,
        chosen: &Arc<Deployment>,
    ) -> Result<(), TestCaseError> {
        prop_assert!(call.attempts <= self.limits.max_attempts);
        prop_assert!(call.now < self.limits.deadline_ms, "past the deadline");
        prop_assert!(self.may_use(chosen), "the caller may not use it");
        prop_assert!(
            !call.failed.iter().any(|d| Arc::ptr_eq(d, chosen)),
            "it has failed this call already"
        );
        let mark = chosen.mark(at(call.now));
        prop_assert!(
            mark.is_none_or(|m| m.reason != MarkReason::Throttled),
            "it is full"
        );
        for other in self.usable(model).filter(|d| call.is_free(d, &self.limits)) {
            let name = &other.spec.backend;
            prop_assert!(mark.is_none(), "{name} is free");
            prop_assert!(!call.has_tried(chosen), "{name} is free and was not tried");
            prop_assert!(
                other.spec.tier >= chosen.spec.tier,
                "{name} is free in a tier before it"
            );
        }
        Ok(())
    }

    fn check_end(
        &self,
        model: &ModelPool,
        call: &Progress,
        why: GiveUp,
    ) -> Result<(), TestCaseError> {
        let late = call.now >= self.limits.deadline_ms;
        prop_assert_eq!(late, why == GiveUp::DeadlinePassed);
        if late {
            return Ok(());
        }
        let nobody = self.usable(model).next().is_none();
        prop_assert_eq!(nobody, why == GiveUp::NoDeployment);
        if nobody {
            return Ok(());
        }
        let first_back = self
            .usable(model)
            .filter_map(|d| d.mark(at(call.now)))
            .filter(|mark| mark.reason == MarkReason::Throttled)
            .map(|mark| mark.until.ms_since(at(call.now)))
            .min();
        match why {
            GiveUp::AllThrottled { retry_after_ms } => {
                prop_assert_eq!(retry_after_ms, first_back.unwrap_or(1));
            }
            _ => prop_assert_eq!(first_back, None, "a full one comes back"),
        }
        let free = self.usable(model).any(|d| call.is_free(d, &self.limits));
        prop_assert!(
            !free || call.attempts == self.limits.max_attempts,
            "one is free that was not tried"
        );
        Ok(())
    }

    fn usable<'m>(&self, model: &'m ModelPool) -> impl Iterator<Item = &'m Arc<Deployment>> {
        model.deployments().filter(|d| self.may_use(d))
    }
}

/// How far a call is, kept beside the plan's own notes.
#[derive(Default)]
struct Progress {
    now: u64,
    waited: u64,
    attempts: u32,
    failed: Vec<Arc<Deployment>>,
    /// Since the last wait.
    throttled: Vec<Arc<Deployment>>,
}

impl Progress {
    fn note(&mut self, deployment: &Arc<Deployment>, reason: MarkReason) {
        let list = match reason {
            MarkReason::Throttled => &mut self.throttled,
            MarkReason::Failed | MarkReason::Misconfigured => &mut self.failed,
        };
        list.push(Arc::clone(deployment));
    }

    fn has_tried(&self, deployment: &Arc<Deployment>) -> bool {
        let all = self.failed.iter().chain(&self.throttled);
        all.into_iter().any(|d| Arc::ptr_eq(d, deployment))
    }

    /// Whether nothing speaks against a deployment: no mark, no way back, no failure of this call.
    fn is_free(&self, deployment: &Arc<Deployment>, limits: &Limits) -> bool {
        !self.has_tried(deployment) && deployment.admits(at(self.now), limits.ramp_ms, 999)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_call_ends_in_bounds_and_asks_only_whom_it_may_and_should(world in world()) {
        world.play()?;
    }
}
