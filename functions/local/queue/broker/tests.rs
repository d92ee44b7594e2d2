use super::*;

fn at(s: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_700_000_000_000 + s * 1000)
}

fn broker() -> Broker {
    Broker::new(["batch", "results"].map(|name| (name, Limits::default())))
}

fn message(id: &str) -> Outgoing {
    Outgoing {
        message: Message {
            id: Some(id.into()),
            body: "x".into(),
            ..Message::default()
        },
        ..Outgoing::default()
    }
}

#[test]
fn messages_are_counted_by_where_they_stand() {
    let mut broker = broker();
    let none = Messages {
        waiting: 0,
        scheduled: 0,
        dead: 0,
        oldest: None,
    };
    assert_eq!(broker.messages("batch", at(0)), Some(none));
    assert_eq!(broker.messages("no", at(0)), None);
    for (id, s) in [("a", 1), ("b", 2)] {
        broker.send("batch", message(id), at(s)).unwrap();
    }
    let later = Outgoing {
        scheduled: Some(at(100)),
        ..message("c")
    };
    broker.send("batch", later, at(3)).unwrap();
    broker.receive("batch", at(4)).unwrap().unwrap();
    let counted = Messages {
        waiting: 2,
        scheduled: 1,
        oldest: Some(at(1)),
        ..none
    };
    assert_eq!(broker.messages("Batch", at(5)), Some(counted));
    let due = broker.messages("batch", at(100)).unwrap();
    assert_eq!((due.waiting, due.scheduled), (3, 0));
}

#[test]
fn a_message_is_delivered_until_it_is_completed() {
    let mut broker = broker();
    assert_eq!(broker.send("Batch", message("a"), at(0)), Ok(true));
    let first = broker.receive("batch", at(0)).unwrap().unwrap();
    assert_eq!(broker.receive("batch", at(59)), Ok(None), "it is locked");
    let second = broker.receive("batch", at(60)).unwrap().unwrap();
    assert_eq!(
        (second.received.deliveries, second.received.sequence),
        (2, first.received.sequence)
    );
    assert!(
        !broker.complete("batch", first.token, at(61)),
        "its lock ran out"
    );
    assert!(broker.renew("batch", second.token, at(100)));
    assert!(broker.complete("batch", second.token, at(150)));
    assert_eq!(broker.length("batch"), 0);
}

#[test]
fn a_duplicate_is_dropped_as_long_as_its_id_is_remembered() {
    let mut broker = broker();
    assert_eq!(broker.send("batch", message("a"), at(0)), Ok(true));
    assert_eq!(broker.send("batch", message("a"), at(86_399)), Ok(false));
    assert_eq!(
        broker.send("results", message("a"), at(0)),
        Ok(true),
        "of that queue only"
    );
    broker.receive("batch", at(86_400)).unwrap();
    assert_eq!(broker.send("batch", message("a"), at(86_400)), Ok(true));
    assert_eq!(
        broker.send("nowhere", message("a"), at(0)),
        Err(NoSuchQueue)
    );
}

#[test]
fn a_scheduled_message_appears_in_its_time_and_an_expired_one_is_gone() {
    let mut broker = broker();
    let later = Outgoing {
        scheduled: Some(at(10)),
        ttl_s: Some(5),
        ..message("a")
    };
    broker.send("batch", later.clone(), at(0)).unwrap();
    assert_eq!(broker.receive("batch", at(9)), Ok(None));
    let delivery = broker.receive("batch", at(10)).unwrap().unwrap();
    assert_eq!(delivery.received.enqueued, at(10));
    assert_eq!(delivery.received.expires, Some(at(15)));
    let other = Outgoing {
        message: message("b").message,
        ..later
    };
    broker.send("batch", other, at(10)).unwrap();
    assert_eq!(broker.receive("batch", at(20)), Ok(None));
    assert_eq!(broker.length("batch"), 1, "the locked one");
}

#[test]
fn what_is_abandoned_too_often_is_a_dead_letter() {
    let mut broker = broker();
    broker.send("batch", message("a"), at(0)).unwrap();
    for delivery in 1..=10 {
        let next = broker.receive("batch", at(0)).unwrap().unwrap();
        assert_eq!(next.received.deliveries, delivery);
        broker.abandon("batch", next.token, at(0));
    }
    assert_eq!(broker.receive("batch", at(0)), Ok(None));
    assert_eq!(broker.dead("batch"), 1);
    let dead = broker
        .take("batch/$DeadLetterQueue", at(0))
        .unwrap()
        .unwrap();
    assert_eq!(
        dead.message.properties["DeadLetterReason"],
        "MaxDeliveryCountExceeded"
    );
    assert_eq!(broker.dead("batch"), 0);
}

#[test]
fn what_was_kept_is_put_back_with_its_counts_and_without_its_locks() {
    let mut first = broker();
    first.send("batch", message("a"), at(0)).unwrap();
    first.send("batch", message("b"), at(0)).unwrap();
    let locked = first.receive("batch", at(0)).unwrap().unwrap();
    let mut kept = BTreeMap::new();
    let mut ids = Vec::new();
    for change in first.take_changes() {
        match change {
            Change::Put(_, stored) => drop(kept.insert(stored.sequence, stored)),
            Change::Gone(_, sequence) => drop(kept.remove(&sequence)),
            id => ids.push(id),
        }
    }
    let mut second = broker();
    let put = |stored| Change::Put("batch".into(), stored);
    second.restore(kept.into_values().map(put).chain(ids));
    assert_eq!(second.send("batch", message("a"), at(1)), Ok(false));
    let again = second.receive("batch", at(1)).unwrap().unwrap();
    assert_eq!(again.received.message.id.as_deref(), Some("a"));
    assert_eq!(
        (again.received.deliveries, locked.received.deliveries),
        (2, 1)
    );
    second.send("batch", message("c"), at(1)).unwrap();
    assert_eq!(
        second
            .take("batch", at(1))
            .unwrap()
            .unwrap()
            .message
            .id
            .as_deref(),
        Some("b")
    );
    assert_eq!(second.take("batch", at(1)).unwrap().unwrap().sequence, 3);
}
