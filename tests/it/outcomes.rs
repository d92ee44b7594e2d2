//! How calls end, as their events tell it.

use std::time::Duration;

use spillway::gateway::event::{Kind, Outcome, UsageEvent, UsageSource};

use crate::gateway::{OPEN, backend, start};
use crate::scripted::{Act, Scripted, answer, full, good};
use crate::served::wait_for;

#[tokio::test]
async fn an_answer_of_known_length_that_arrived_is_completed() {
    let a = Scripted::start(vec![good()]).await;
    let gateway = start(&(OPEN.to_owned() + &backend("a", a.address, "payg", ""))).await;
    let answer = gateway.chat().send().await.unwrap();
    answer.bytes().await.unwrap();
    let event = gateway.event().await;
    assert_eq!(
        (event.outcome, event.usage),
        (Outcome::Completed, UsageSource::Reported)
    );
}

#[tokio::test]
async fn a_client_that_leaves_within_an_answer_of_known_length_is_gone() {
    let a = Scripted::start(vec![Act::Flood(64)]).await;
    let gateway = start(&(OPEN.to_owned() + &backend("a", a.address, "payg", ""))).await;
    let mut answer = gateway.chat().send().await.unwrap();
    answer.chunk().await.unwrap();
    drop(answer);
    assert_eq!(gateway.event().await.outcome, Outcome::ClientGone);
}

/// The event of a call whose client leaves while its second attempt, at `kinds[1]`, is under way.
async fn left_at_the_second(first: Act, kinds: [&str; 2]) -> UsageEvent {
    let a = Scripted::start(vec![first]).await;
    let b = Scripted::start(vec![Act::Hang]).await;
    let config = [
        OPEN,
        &backend("a", a.address, kinds[0], "tier = 1"),
        &backend("b", b.address, kinds[1], "tier = 2"),
    ];
    let gateway = start(&config.concat()).await;
    let call = tokio::spawn(gateway.chat().send());
    wait_for(|| (b.calls() == 1).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    call.abort();
    gateway.event().await
}

#[tokio::test]
async fn a_call_whose_client_leaves_is_charged_by_the_ptu_that_was_at_work() {
    let broken = answer("500 Internal Server Error", "", "{}");
    let event = left_at_the_second(broken, ["payg", "ptu"]).await;
    assert_eq!((event.status, event.outcome), (499, Outcome::ClientGone));
    assert_eq!(event.usage, UsageSource::Estimated);
    let [failed, left] = &event.attempts[..] else {
        panic!("{event:?}")
    };
    assert_eq!((failed.status, failed.billed), (Some(500), false));
    assert_eq!(
        (left.status, left.billed, left.kind),
        (None, true, Kind::Ptu)
    );
    assert!(left.error.as_deref() == Some("client_gone") && left.ms >= 30);
    assert_eq!(
        (&**event.served().backend, event.kind),
        ("b", Some(Kind::Ptu))
    );
    assert!(!event.spilled);
}

#[tokio::test]
async fn a_call_whose_client_leaves_has_spilled_where_the_ptu_was_full() {
    let event = left_at_the_second(full(60_000), ["ptu", "payg"]).await;
    let billed: Vec<bool> = event.attempts.iter().map(|one| one.billed).collect();
    assert_eq!(billed, [false, true]);
    assert_eq!(
        (event.served().kind, event.spilled),
        (Some(Kind::Payg), true)
    );
}
