use super::super::app::Tiers;
use super::super::deployment::DeploymentSpec;
use super::super::strategy::{Selection, Strategy};
use super::*;

mod properties;

const LIMITS: Limits = Limits {
    wait_budget_ms: 5000,
    max_attempts: 6,
    deadline_ms: 220_000,
    ramp_ms: 10_000,
};

fn spec(backend: &str, kind: Kind, tier: u8) -> DeploymentSpec {
    DeploymentSpec {
        backend: backend.into(),
        name: "gpt-4o".into(),
        kind,
        tier,
        weight: 1,
        region: Some(format!("region-of-{backend}").into()),
        apps: Vec::new(),
    }
}

fn model(specs: Vec<DeploymentSpec>, selection: Selection) -> ModelPool {
    ModelPool::new("gpt-4o".into(), specs, selection)
}

fn ptu_and_payg(selection: Selection) -> ModelPool {
    model(
        vec![spec("ptu", Kind::Ptu, 1), spec("payg", Kind::Payg, 2)],
        selection,
    )
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_000_000 + ms)
}

struct Call<'a> {
    model: &'a ModelPool,
    caller: Caller<'a>,
    plan: Plan,
    random: fastrand::Rng,
}

impl<'a> Call<'a> {
    fn new(model: &'a ModelPool) -> Self {
        Self {
            model,
            caller: Caller::default(),
            plan: Plan::new(at(0)),
            random: fastrand::Rng::with_seed(1),
        }
    }

    fn step(&mut self, now: u64) -> Step {
        self.plan
            .next(self.model, &self.caller, &LIMITS, at(now), &mut self.random)
    }

    fn tries(&mut self, now: u64) -> Arc<Deployment> {
        match self.step(now) {
            Step::Try(deployment) => deployment,
            other => panic!("{other:?}"),
        }
    }

    fn backend(&mut self, now: u64) -> String {
        self.tries(now).spec.backend.to_string()
    }

    fn fails(&mut self, reason: MarkReason, ms: u64, now: u64) -> String {
        let deployment = self.tries(now);
        deployment.set_mark(reason, ms, at(now));
        self.plan.failed(self.model, &deployment, reason);
        deployment.spec.backend.to_string()
    }

    fn gives_up(&mut self, now: u64) -> GiveUp {
        match self.step(now) {
            Step::GiveUp(why) => why,
            other => panic!("{other:?}"),
        }
    }

    fn waits(&mut self, now: u64) -> u64 {
        match self.step(now) {
            Step::Wait(ms) => ms,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_full_ptu_spills_over_at_once_and_gets_its_calls_back_when_it_drains() {
    let model = ptu_and_payg(Selection::default());
    let mut call = Call::new(&model);
    assert_eq!(call.fails(MarkReason::Throttled, 200, 0), "ptu");
    assert_eq!(call.backend(0), "payg");
    assert!(call.plan.passed_ptu());
    assert_eq!(call.plan.attempts(), 2);
    assert_eq!(
        Call::new(&model).backend(199),
        "payg",
        "the mark holds for other calls too"
    );
    let mut later = Call::new(&model);
    assert_eq!(later.backend(200), "ptu");
    assert!(!later.plan.passed_ptu());
}

#[test]
fn a_mark_of_a_millisecond_does_not_bring_the_same_call_back_before_the_next_tier() {
    let model = ptu_and_payg(Selection::default());
    let mut call = Call::new(&model);
    call.fails(MarkReason::Throttled, 1, 0);
    assert_eq!(call.backend(50), "payg");
}

#[test]
fn waiting_can_beat_paying() {
    let model = ptu_and_payg(Selection {
        spill_after_ms: 300,
        ..Selection::default()
    });
    let mut call = Call::new(&model);
    call.fails(MarkReason::Throttled, 200, 0);
    assert_eq!(call.waits(0), 200);
    assert_eq!(call.fails(MarkReason::Throttled, 200, 200), "ptu");
    assert_eq!(
        call.backend(200),
        "payg",
        "what is left of 300 ms is too short"
    );
}

#[test]
fn all_full_waits_within_the_budget_and_then_says_when_to_come_back() {
    let model = ptu_and_payg(Selection::default());
    let mut call = Call::new(&model);
    call.fails(MarkReason::Throttled, 4000, 0);
    call.fails(MarkReason::Throttled, 3000, 0);
    assert_eq!(call.waits(0), 3000);
    assert_eq!(call.fails(MarkReason::Throttled, 9000, 3000), "payg");
    assert_eq!(call.waits(3000), 1000);
    assert_eq!(call.fails(MarkReason::Throttled, 7000, 4000), "ptu");
    assert_eq!(
        call.gives_up(4000),
        GiveUp::AllThrottled {
            retry_after_ms: 7000
        }
    );
}

#[test]
fn a_client_hears_the_smallest_retry_after_at_once_when_it_is_beyond_the_budget() {
    let model = ptu_and_payg(Selection::default());
    let mut call = Call::new(&model);
    call.fails(MarkReason::Throttled, 60_000, 0);
    call.fails(MarkReason::Throttled, 8000, 0);
    assert_eq!(
        call.gives_up(0),
        GiveUp::AllThrottled {
            retry_after_ms: 8000
        }
    );
    assert_eq!(
        Call::new(&model).gives_up(1000),
        GiveUp::AllThrottled {
            retry_after_ms: 7000
        }
    );
}

#[test]
fn three_with_one_broken_lets_no_call_fail() {
    let specs = ["a", "b", "c"].map(|b| spec(b, Kind::Payg, 1)).to_vec();
    let model = model(specs, Selection::default());
    for now in 0..30 {
        let mut call = Call::new(&model);
        let mut first = call.tries(now);
        if &*first.spec.backend == "b" {
            first.set_mark(MarkReason::Failed, 10_000, at(now));
            call.plan.failed(&model, &first, MarkReason::Failed);
            first = call.tries(now);
        }
        assert_ne!(&*first.spec.backend, "b");
    }
}

#[test]
fn a_failed_deployment_is_asked_all_the_same_when_nothing_else_is_left() {
    let model = model(vec![spec("only", Kind::Payg, 1)], Selection::default());
    let mut call = Call::new(&model);
    assert_eq!(call.fails(MarkReason::Failed, 10_000, 0), "only");
    assert_eq!(call.gives_up(0), GiveUp::AllFailed);
    assert_eq!(
        Call::new(&model).fails(MarkReason::Misconfigured, 20_000, 5),
        "only"
    );
    assert_eq!(Call::new(&model).backend(6), "only");
}

#[test]
fn a_deployment_on_its_way_back_takes_all_calls_when_it_is_the_only_one() {
    let model = model(vec![spec("only", Kind::Payg, 1)], Selection::default());
    Call::new(&model).fails(MarkReason::Failed, 10, 0);
    for _ in 0..50 {
        assert_eq!(Call::new(&model).backend(11), "only");
    }
}

#[test]
fn one_that_throttled_and_is_back_is_tried_again() {
    let model = ptu_and_payg(Selection::default());
    let mut call = Call::new(&model);
    call.fails(MarkReason::Throttled, 5, 0);
    call.fails(MarkReason::Failed, 10_000, 0);
    assert_eq!(call.backend(6), "ptu");
}

#[test]
fn attempts_and_time_are_bounded() {
    let specs: Vec<_> = (0..9)
        .map(|i| spec(&format!("b{i}"), Kind::Payg, 1))
        .collect();
    let model = model(specs, Selection::default());
    let mut call = Call::new(&model);
    for _ in 0..LIMITS.max_attempts {
        call.fails(MarkReason::Failed, 10_000, 0);
    }
    assert_eq!(call.gives_up(0), GiveUp::AllFailed);
    assert_eq!(Call::new(&model).gives_up(220_000), GiveUp::DeadlinePassed);
}

#[test]
fn a_caller_keeps_to_its_backends() {
    let model = ptu_and_payg(Selection::default());
    let mut app = App::unrestricted("portal");
    app.backends = Some(vec!["payg".into()]);
    let mut call = Call::new(&model);
    call.caller.app = Some(&app);
    assert_eq!(call.backend(0), "payg");
    call.caller.pinned = Some("ptu");
    assert_eq!(call.gives_up(0), GiveUp::NoDeployment);
    call.caller.app = None;
    assert_eq!(call.backend(0), "ptu");
    let homes = ["payg".into()];
    call.caller.homes = &homes;
    assert_eq!(call.gives_up(0), GiveUp::NoDeployment);
    call.caller.pinned = None;
    assert_eq!(call.backend(0), "payg");
}

#[test]
fn an_apps_own_deployment_is_its_first_choice_and_nobody_elses() {
    let mut own = spec("own", Kind::Ptu, 1);
    own.apps = vec!["portal".into()];
    let specs = vec![
        spec("shared", Kind::Ptu, 1),
        own,
        spec("payg", Kind::Payg, 2),
    ];
    let model = model(specs, Selection::default());
    let (portal, other) = (App::unrestricted("portal"), App::unrestricted("other"));
    for now in 0..4 {
        let mut call = Call::new(&model);
        call.caller.app = Some(&portal);
        assert_eq!(call.backend(now), "own");
        call.caller.app = Some(&other);
        assert_eq!(call.backend(now), "shared");
    }
    let mut call = Call::new(&model);
    call.caller.app = Some(&portal);
    assert_eq!(call.fails(MarkReason::Throttled, 500, 9), "own");
    assert_eq!(call.fails(MarkReason::Throttled, 500, 9), "shared");
    assert_eq!(call.backend(9), "payg");
}

#[test]
fn a_call_of_one_kind_goes_to_no_other_though_all_of_it_are_full() {
    let pool = ptu_and_payg(Selection::default());
    let mut call = Call::new(&pool);
    call.caller.only = Some(Kind::Payg);
    assert_eq!(call.backend(0), "payg");
    let mut call = Call::new(&pool);
    call.caller.only = Some(Kind::Ptu);
    assert_eq!(call.fails(MarkReason::Throttled, 9000, 0), "ptu");
    assert!(matches!(
        call.step(0),
        Step::GiveUp(GiveUp::AllThrottled {
            retry_after_ms: 9000
        })
    ));
}

#[test]
fn an_app_keeps_to_its_tiers() {
    let model = ptu_and_payg(Selection::default());
    let mut app = App::unrestricted("batch");
    app.tiers = Tiers::only(&[2]);
    let mut call = Call::new(&model);
    call.caller.app = Some(&app);
    assert_eq!(call.backend(0), "payg");
    assert!(
        !call.plan.passed_ptu(),
        "a tier out of reach was not passed over"
    );
}

#[test]
fn the_own_region_goes_first_within_a_tier() {
    let specs = vec![
        spec("a", Kind::Payg, 1),
        spec("b", Kind::Payg, 1),
        spec("c", Kind::Payg, 2),
    ];
    let prefers = Selection {
        prefer_region: true,
        strategy: Strategy::Random,
        ..Selection::default()
    };
    let model = model(specs, prefers);
    let mut call = Call::new(&model);
    call.caller.region = Some("region-of-b");
    for _ in 0..5 {
        assert_eq!(call.backend(0), "b");
    }
    let mut call = Call::new(&model);
    call.caller.region = Some("region-of-c");
    assert_ne!(call.backend(0), "c", "the tier counts more than the region");
}
