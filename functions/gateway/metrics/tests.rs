use std::sync::Arc;

use proptest::prelude::*;

use super::shard::Size;
use super::*;
use crate::gateway::event::{Attempt, Kind, Outcome, Tokens, UsageEvent, UsageSource};
use crate::gateway::time::Timestamp;

fn name(backend: &str, deployment: &str, kind: Kind, tier: u8) -> DeploymentName {
    DeploymentName {
        backend: backend.into(),
        deployment: deployment.into(),
        model: "gpt-4o".into(),
        kind,
        tier,
    }
}

fn names() -> Names {
    let deployments = vec![
        name("payg", "gpt-4o", Kind::Payg, 2),
        name("ptu", "gpt-4o-ptu", Kind::Ptu, 1),
    ];
    Names::new(deployments, ["portal".into(), "batch".into()])
}

fn attempt(backend: &str, deployment: &str, status: Option<u16>, ms: u64) -> Attempt {
    Attempt {
        backend: backend.into(),
        deployment: deployment.into(),
        kind: Kind::Payg,
        status,
        error: None,
        after_ms: 0,
        ms,
        billed: false,
    }
}

/// A call that a full PTU deployment passed on to pay-as-you-go.
fn spilled() -> UsageEvent {
    UsageEvent {
        id: "1".into(),
        app: "portal".into(),
        model: "gpt-4o".into(),
        backend: "payg".into(),
        deployment: "gpt-4o".into(),
        kind: Some(Kind::Payg),
        status: 200,
        spilled: true,
        outcome: Outcome::Completed,
        tokens: Tokens {
            input: 100,
            output: 20,
            cached: 64,
            ..Tokens::default()
        },
        usage: UsageSource::Reported,
        first_byte_ms: 130,
        total_ms: 500,
        attempts: vec![
            attempt("ptu", "gpt-4o-ptu", Some(429), 30),
            attempt("payg", "gpt-4o", Some(200), 80),
        ],
        ..UsageEvent::default()
    }
}

#[test]
fn a_spilled_call_counts_at_both_deployments() {
    let metrics = Metrics::new(Arc::new(names()));
    metrics.shard().count(&spilled());
    let totals = metrics.totals();
    let of = |name: &str| {
        let mut all = totals.names.deployments.iter().zip(&totals.deployments);
        all.find(|(one, _)| &*one.backend == name).unwrap().1
    };
    let (ptu, payg) = (of("ptu"), of("payg"));
    assert_eq!(ptu.get(Count::AttemptThrottled), 1);
    assert_eq!((ptu.calls(), ptu.tokens()), (0, 0), "it served nothing");
    assert_eq!(payg.get(Count::AttemptServed), 1);
    assert_eq!((payg.get(Count::Spilled), payg.tokens()), (1, 120));
    let duration = payg.size(Size::Duration).unwrap();
    assert_eq!(duration.sum, 450, "from when this deployment was asked");
    assert_eq!(payg.size(Size::FirstByte).unwrap().sum, 80);
    let model = &totals.models[0];
    assert_eq!((model.calls(), model.get(Count::Good)), (1, 1));
    assert_eq!(model.size(Size::Duration).unwrap().sum, 500);
    assert_eq!(totals.apps[0].tokens(), 120);
}

#[test]
fn no_caller_can_make_a_counter() {
    let metrics = Metrics::new(Arc::new(names()));
    let shard = metrics.shard();
    for name in ["evil", "\"}\n", ""] {
        let mut event = spilled();
        event.app = name.into();
        event.model = name.into();
        event.attempts = vec![attempt(name, name, Some(200), 1)];
        shard.count(&event);
    }
    let totals = metrics.totals();
    assert_eq!((totals.models.len(), totals.apps.len()), (2, 3));
    assert_eq!(totals.models[1].calls(), 3);
    assert_eq!(totals.apps[2].calls(), 3);
    assert!(totals.deployments.iter().all(Total::is_none));
}

#[test]
fn a_call_is_of_one_class() {
    let class = |status, outcome| {
        let mut event = spilled();
        (event.status, event.outcome) = (status, outcome);
        Count::of_call(&event)
    };
    assert_eq!(class(200, Outcome::Completed), Count::Good);
    assert_eq!(class(200, Outcome::Cut), Count::Good);
    assert_eq!(class(429, Outcome::Failed), Count::Throttled);
    assert_eq!(class(404, Outcome::Failed), Count::ClientError);
    assert_eq!(class(503, Outcome::Failed), Count::ServerError);
    assert_eq!(class(200, Outcome::ClientGone), Count::ClientGone);
}

#[test]
fn a_call_without_an_answer_has_no_times() {
    let metrics = Metrics::new(Arc::new(names()));
    let mut event = spilled();
    event.backend = "".into();
    event.status = 503;
    event.outcome = Outcome::Failed;
    event.attempts = vec![
        attempt("ptu", "gpt-4o-ptu", None, 5),
        attempt("payg", "gpt-4o", Some(403), 5),
    ];
    metrics.shard().count(&event);
    let totals = metrics.totals();
    assert_eq!(totals.models[0].get(Count::ServerError), 1);
    assert_eq!(totals.models[0].size(Size::Duration).unwrap().count(), 0);
    let (ptu, payg) = (&totals.deployments[0], &totals.deployments[1]);
    assert_eq!(ptu.get(Count::AttemptFailed), 1);
    assert_eq!(payg.get(Count::AttemptRefused), 1);
}

#[test]
fn the_last_minute_is_what_came_since_a_look_a_minute_ago() {
    let metrics = Metrics::new(Arc::new(names()));
    let shard = metrics.shard();
    let mut window = Window::default();
    let at = |s: u64| Timestamp::from_unix_ms(1_000_000 + s * 1000);
    assert_eq!(window.lately(at(0), &metrics.totals()), None);
    for second in 0..300 {
        window.look(at(second), &metrics.totals());
        shard.count(&spilled());
    }
    let lately = window.lately(at(300), &metrics.totals()).unwrap();
    assert_eq!(lately.ms, 70_000);
    assert_eq!(lately.totals.models[0].calls(), 70);
}

#[test]
fn failures_and_slow_calls_are_notable_and_a_flood_of_refusals_hides_none() {
    let metrics = Metrics::new(Arc::new(names()));
    let shard = metrics.shard();
    let count = |id: &str, status, outcome, first_byte_ms| {
        let mut event = spilled();
        event.id = id.to_owned();
        (event.status, event.outcome) = (status, outcome);
        event.first_byte_ms = first_byte_ms;
        shard.count(&event);
    };
    for i in 0..1000 {
        count(&format!("a{i:04}"), 429, Outcome::Failed, 0);
    }
    count("b", 503, Outcome::Failed, 0);
    count("c", 200, Outcome::Completed, 10);
    count("d", 200, Outcome::Completed, 10_000);
    count("e", 200, Outcome::Cut, 10);
    count("f", 400, Outcome::Failed, 0);
    count("g", 200, Outcome::ClientGone, 10);
    let taken = metrics.take_notable();
    assert_eq!(taken.left_out, 1000 - 16);
    let ids: Vec<String> = taken.into_events().map(|event| event.id).collect();
    assert_eq!(ids.len(), 19);
    assert_eq!(ids[16..], ["b", "d", "e"]);
    assert_eq!(metrics.take_notable().into_events().count(), 0);
}

#[test]
fn a_rollup_comes_back_from_json_as_it_went() {
    let metrics = Metrics::new(Arc::new(names()));
    metrics.shard().count(&spilled());
    let rollup = Rollup::of(&metrics.totals());
    let json = serde_json::to_string(&rollup).unwrap();
    let back: Rollup = serde_json::from_str(&json).unwrap();
    assert_eq!(back, rollup);
    let payg = back.deployments.iter().find(|d| d.kind == Kind::Payg);
    let total = payg.unwrap().total();
    assert_eq!(total.quantile(Size::FirstByte, 50), Some(80));
    assert_eq!(back.sum(Kind::Payg, None, Count::Output), 20);
    assert_eq!(back.sum(Kind::Payg, Some("other"), Count::Output), 0);
    assert_eq!(back.sum(Kind::Ptu, None, Count::AttemptThrottled), 1);
    let older = r#"{"d":[],"m":[{"m":"gpt-4o","c":[3]}],"new":1}"#;
    let older: Rollup = serde_json::from_str(older).unwrap();
    assert_eq!(older.models[0].total().calls(), 3);
}

proptest! {
    #[test]
    fn shards_sum_to_what_one_would_have_counted(
        calls in proptest::collection::vec((0usize..3, 0u64..5000, 0u64..100_000), 0..60),
    ) {
        let (many, one) = (Metrics::new(Arc::new(names())), Metrics::new(Arc::new(names())));
        let shards = [many.shard(), many.shard(), many.shard()];
        let single = one.shard();
        for (place, first_byte_ms, total_ms) in calls {
            let mut event = spilled();
            (event.first_byte_ms, event.total_ms) = (first_byte_ms, total_ms);
            shards[place].count(&event);
            single.count(&event);
        }
        prop_assert_eq!(many.totals(), one.totals());
    }
}

#[test]
fn counters_go_on_where_their_names_do() {
    let metrics = Metrics::new(Arc::new(names()));
    let shard = metrics.shard();
    shard.count(&spilled());
    let earlier = metrics.totals();
    let deployments = vec![
        name("east", "gpt-4o", Kind::Payg, 1),
        name("payg", "gpt-4o", Kind::Payg, 2),
    ];
    metrics.adopt(Arc::new(Names::new(
        deployments,
        ["new".into(), "portal".into()],
    )));
    shard.count(&spilled());
    let totals = metrics.totals();
    let attempts: Vec<u64> = totals.deployments.iter().map(Total::attempts).collect();
    assert_eq!(attempts, [0, 2], "the one that is gone is counted no more");
    let apps: Vec<u64> = totals.apps.iter().map(Total::calls).collect();
    assert_eq!(apps, [0, 2, 0]);
    let since = totals.since(&earlier);
    let apps: Vec<u64> = since.apps.iter().map(Total::calls).collect();
    assert_eq!(apps, [0, 1, 0], "by name, wherever it stands now");
    assert_eq!(since.models[0].calls(), 1);
}
