use super::*;
use crate::gateway::service_tier::ServiceTier;
use crate::gateway::time::Timestamp;
use crate::store::bill;
use crate::store::embedded::Embedded;
use crate::store::ledger::Ledger;

#[test]
fn a_sum_that_would_be_rounded_is_none() {
    let large = Decimal::from_str_exact("79228162514264337593543950335").unwrap();
    let small = Decimal::from_str_exact("0.0000000000000000000000000001").unwrap();
    assert_eq!(exact(large, Decimal::ONE), None);
    assert_eq!(exact(Decimal::from(1_000_000_u32), small), None);
    assert_eq!(
        exact(small, small).unwrap().to_string(),
        "0.0000000000000000000000000002"
    );
    assert_eq!(add(i64::MAX.unsigned_abs(), 1), None);
}

#[test]
fn models_that_share_a_ptu_have_hours_of_their_own() {
    let event = |model: &str| UsageEvent {
        time: Timestamp::from_unix_ms(1_795_453_590_000),
        model: model.into(),
        backend: "b".into(),
        deployment: "d".into(),
        kind: Some(Kind::Ptu),
        ..UsageEvent::default()
    };
    let rows = |model| -> Vec<String> {
        let event = event(model);
        Of::all(&event).map(|of| of.row(2)).collect()
    };
    assert_eq!(
        rows("gpt-4o"),
        ["sum|gpt-4o|ptu|b|d|2", "ptu|17|gpt-4o|b|d|2"]
    );
    assert_eq!(rows("chat"), ["sum|chat|ptu|b|d|2", "ptu|17|chat|b|d|2"]);
}

#[test]
fn a_call_counts_for_what_it_was() {
    let mut event = UsageEvent {
        status: 200,
        outcome: Outcome::Completed,
        usage: UsageSource::Reported,
        spilled: true,
        kind: Some(Kind::Payg),
        tokens: Tokens {
            input: 5,
            output: 2,
            ..Tokens::default()
        },
        ..UsageEvent::default()
    };
    let priced = Charge {
        cost: Some(Decimal::TWO),
        ..Charge::default()
    };
    let sum = Sum::of(&event, &priced);
    assert_eq!((sum.calls, sum.failed_calls, sum.spilled_calls), (1, 0, 1));
    assert_eq!((sum.spilled_tokens, sum.spilled_cost), (7, Decimal::TWO));
    assert_eq!(sum.unpriced_calls, 0);
    let unpriced = Charge {
        is_unpriced: true,
        ..Charge::default()
    };
    assert_eq!(Sum::of(&event, &unpriced).unpriced_calls, 1);
    for (status, outcome, failed) in [
        (429, Outcome::Failed, 1),
        (400, Outcome::Completed, 1),
        (200, Outcome::Cut, 1),
        (499, Outcome::ClientGone, 0),
    ] {
        (event.status, event.outcome) = (status, outcome);
        assert_eq!(Sum::of(&event, &unpriced).failed_calls, failed, "{status}");
    }
}

/// A call of `id` at deployment `d`, that used ten tokens.
fn at_d(id: &str, app: &str, cache: Cache) -> UsageEvent {
    UsageEvent {
        id: id.into(),
        time: Timestamp::from_unix_ms(1_795_453_590_000),
        app: app.into(),
        backend: "b".into(),
        deployment: "d".into(),
        kind: Some(Kind::Payg),
        status: 200,
        outcome: Outcome::Completed,
        cache: Some(cache),
        tokens: Tokens {
            input: 10,
            ..Tokens::default()
        },
        usage: UsageSource::Reported,
        ..UsageEvent::default()
    }
}

#[tokio::test]
async fn calls_that_shared_an_answer_are_one_call_to_its_deployment() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
    let mut failed = at_d("4", "portal", Cache::Miss);
    (failed.status, failed.outcome) = (500, Outcome::Failed);
    let events = [
        at_d("1", "portal", Cache::Miss),
        at_d("2", "portal", Cache::Coalesced),
        at_d("3", "nightly", Cache::Coalesced),
        failed,
    ];
    let events: Vec<&UsageEvent> = events.iter().collect();
    let ledger = Ledger::new(Arc::clone(&store));
    let free = |_: &UsageEvent| Charge::default();
    ledger.record(&events, &free).await.unwrap();
    let mut all = Counted::default();
    for app in ["portal", "nightly"] {
        let days = by_deployment(store.as_ref(), app, "2026-11-23")
            .await
            .unwrap();
        let of = [Arc::from("b"), Arc::from("d")];
        all.add(&days[&of]);
    }
    assert_eq!((all.requests, all.prompt), (1, 40));
}

#[tokio::test]
async fn a_call_that_is_charged_as_standard_is_flagged_in_its_row_as_in_its_sum() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
    let mut event = at_d("1", "portal", Cache::Miss);
    event.service_tier = ServiceTier::Priority;
    (event.tokens.cached, event.tokens.cached_audio) = (6, 4);
    let as_standard = |_: &UsageEvent| Charge {
        cost: Some(Decimal::TWO),
        is_unpriced: true,
        ..Charge::default()
    };
    let ledger = Ledger::new(Arc::clone(&store));
    ledger.record(&[&event], &as_standard).await.unwrap();
    let (app, day) = (Arc::from("portal"), Arc::from("2026-11-23"));
    let sums = bill::sums(store.as_ref(), &app, &day).await.unwrap();
    let rows = bill::by_user(store.as_ref(), &app, &day).await.unwrap();
    for read in [sums, rows] {
        let figures = &read.uses[0].figures;
        assert_eq!((figures.unpriced_calls, figures.cost), (1, Decimal::TWO));
        assert_eq!(figures.tokens, event.tokens);
    }
    let calls = bill::calls(store.as_ref(), &app, &day, None, 9)
        .await
        .unwrap();
    let row = &calls.rows[0].fields;
    assert_eq!(row.get_text("service_tier"), "priority");
    assert_eq!(row.get_number("cached_audio_tokens"), 4);
}
