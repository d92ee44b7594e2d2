//! How calls end, as their events tell it.

use spillway::gateway::event::{Outcome, UsageSource};

use crate::gateway::{OPEN, backend, start};
use crate::scripted::{Act, Scripted, good};

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
