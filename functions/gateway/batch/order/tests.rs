use bytes::Bytes;
use serde_json::json;

use super::*;

const NOON: Timestamp = Timestamp::from_unix_ms(1_700_000_000_000);

fn rules() -> Rules {
    Rules {
        reply_queues: vec!["results".into(), "other".into()],
        max_request: 1000,
        life_ms: 3_600_000,
    }
}

fn received() -> Received {
    let body = r#"{"custom_id":"c","body":{"model":"m","messages":[]}}"#;
    let properties = json!({"app": "nightly", "team": "alpha", "n": 5});
    Received {
        message: Message {
            id: Some("a".into()),
            body: Bytes::from_static(body.as_bytes()),
            properties: properties.as_object().unwrap().clone(),
            ..Message::default()
        },
        sequence: 7,
        deliveries: 1,
        enqueued: NOON,
        expires: None,
    }
}

fn with(name: &str, value: serde_json::Value) -> Result<Order, Fault> {
    let mut received = received();
    received.message.properties.insert(name.into(), value);
    order(&received)
}

fn order(received: &Received) -> Result<Order, Fault> {
    let sender = Sender::of(received, &rules());
    Order::read(received, &received.message.body, &sender, &rules())
}

#[test]
fn a_message_says_who_pays_and_where_the_reply_goes() {
    let mut asked = received();
    asked.message.reply_to = Some("Other".into());
    asked.message.reply_to_session_id = Some("s".into());
    let sender = Sender::of(&asked, &rules());
    assert_eq!((&*sender.id, &*sender.app), ("a", "nightly"));
    assert_eq!(sender.address.queue.as_deref(), Some("other"));
    assert_eq!(sender.address.session.as_deref(), Some("s"));
    assert_eq!(sender.address.correlation.as_deref(), Some("a"));
    asked.message.correlation_id = Some("k".into());
    let sender = Sender::of(&asked, &rules());
    assert_eq!(sender.address.correlation.as_deref(), Some("k"));
    asked.message.reply_to = Some("evil".into());
    let sender = Sender::of(&asked, &rules());
    assert_eq!(sender.address.queue.as_deref(), Some("results"));
    assert_eq!(order(&asked), Err(Fault::ReplyTo("evil".into())));
}

#[test]
fn a_message_without_an_id_is_known_by_its_number() {
    let mut nameless = received();
    nameless.message.id = None;
    assert_eq!(Sender::of(&nameless, &rules()).id, "7-1700000000");
}

#[test]
fn the_same_id_for_something_else_is_another_request() {
    let key = |change: fn(&mut Received)| {
        let mut received = received();
        change(&mut received);
        Sender::of(&received, &rules()).key
    };
    let plain = key(|_| {});
    assert_eq!(plain, key(|r| r.deliveries = 2));
    assert_eq!(plain, key(|r| r.sequence = 8));
    assert_ne!(plain, key(|r| r.message.body = Bytes::from_static(b"{}")));
    assert_ne!(
        plain,
        key(|r| drop(r.message.properties.insert("app".into(), "x".into())))
    );
    assert_eq!(
        key(|r| drop(
            r.message
                .properties
                .insert("spillway-fetched".into(), true.into())
        )),
        "a"
    );
}

#[test]
fn the_earliest_deadline_counts() {
    let at = |s: u64| NOON.plus_ms(s * 1000);
    assert_eq!(order(&received()).unwrap().deadline, at(3600));
    let named = at(60).rfc3339();
    assert_eq!(with("deadline", json!(named)).unwrap().deadline, at(60));
    let late = at(7200).rfc3339();
    assert_eq!(
        with("deadline", json!(late)).unwrap().deadline,
        at(7200),
        "its own wish"
    );
    assert_eq!(
        with("Prefer", json!("respond-async, wait=30"))
            .unwrap()
            .deadline,
        at(30)
    );
    let mut expiring = received();
    expiring.expires = Some(at(10));
    assert_eq!(order(&expiring).unwrap().deadline, at(10));
    for wrong in [json!("tomorrow"), json!(7), json!(true)] {
        assert!(matches!(
            with("deadline", wrong),
            Err(Fault::Property {
                name: "deadline",
                ..
            })
        ));
    }
}

#[test]
fn a_message_is_of_low_priority_unless_it_says_otherwise() {
    assert_eq!(order(&received()).unwrap().priority, Priority::Low);
    assert_eq!(
        with("priority", json!("High")).unwrap().priority,
        Priority::High
    );
    for wrong in [json!("urgent"), json!(5)] {
        assert!(matches!(
            with("priority", wrong),
            Err(Fault::Property {
                name: "priority",
                ..
            })
        ));
    }
}

#[test]
fn a_later_copy_keeps_all_and_is_the_same_message() {
    let mut first = received();
    first.message.reply_to = Some("other".into());
    first.expires = Some(NOON.plus_ms(600_000));
    let sender = Sender::of(&first, &rules());
    let copy = later(&first, &sender, NOON.plus_ms(60_000));
    assert_eq!(
        (copy.message.id.as_deref(), copy.ttl_s),
        (Some("a~1"), Some(540))
    );
    assert_eq!(
        copy,
        later(&first, &sender, NOON.plus_ms(60_000)),
        "made twice, it is the same"
    );
    let again = Received {
        message: copy.message,
        sequence: 99,
        deliveries: 1,
        enqueued: NOON.plus_ms(60_000),
        expires: first.expires,
    };
    let copied = Sender::of(&again, &rules());
    assert_eq!((copied.deferrals, copied.first), (1, NOON));
    assert_eq!(
        (&copied.id, &copied.key, &copied.address),
        (&sender.id, &sender.key, &sender.address)
    );
    assert_eq!(again.message.properties["team"], "alpha");
    let second = later(&again, &copied, NOON.plus_ms(120_000));
    assert_eq!(second.message.id.as_deref(), Some("a~2"));
}

#[test]
fn a_message_that_somebody_put_back_is_told_from_a_copy_that_was_put_off() {
    let at = |s: u64| NOON.plus_ms(s * 1000);
    let mut original = received();
    assert!(!is_sent_since(&original, at(1)), "it was there already");
    original.enqueued = at(2);
    assert!(is_sent_since(&original, at(1)));
    let sender = Sender::of(&original, &rules());
    let copy = later(&original, &sender, at(600));
    let mut copy = Received {
        message: copy.message,
        enqueued: at(601),
        ..original
    };
    assert!(!is_sent_since(&copy, at(300)), "it was put off before");
    copy.enqueued = at(4000);
    assert!(is_sent_since(&copy, at(3000)), "out of the dead letters");
}

#[test]
fn ids_stay_within_bounds() {
    let long = "x".repeat(MAX_ID + 1);
    assert_eq!(bounded(&long).len(), 64);
    assert_eq!(bounded("short"), "short");
}

#[test]
fn a_body_that_is_too_large_is_not_read() {
    let mut large = received();
    large.message.body = vec![b'x'; 1001].into();
    assert_eq!(
        order(&large),
        Err(Fault::TooLarge {
            bytes: 1001,
            max: 1000
        })
    );
}

#[test]
fn a_name_that_is_too_long_is_refused_and_repeated_in_part() {
    let body = |name: &str| {
        let request = json!({"model": "m", "messages": []});
        Bytes::from(json!({"custom_id": name, "body": request}).to_string())
    };
    let longest = "c".repeat(line::MAX_CUSTOM_ID);
    let mut named = received();
    named.message.body = body(&longest);
    assert_eq!(order(&named).unwrap().custom_id, longest);
    named.message.body = body(&(longest.clone() + "c"));
    let sender = Sender::of(&named, &rules());
    let characters = line::MAX_CUSTOM_ID + 1;
    assert_eq!(order(&named), Err(Fault::CustomId { characters }));
    assert_eq!(custom_id(&named.message.body, &sender), longest);
}

#[test]
fn an_id_that_stands_for_a_name_is_no_longer_than_one() {
    let mut received = received();
    received.message.body = Bytes::from_static(br#"{"model":"m","messages":[]}"#);
    let id = json!("i".repeat(line::MAX_CUSTOM_ID + 1));
    let properties = &mut received.message.properties;
    properties.insert("spillway-id".into(), id);
    let sender = Sender::of(&received, &rules());
    let name = order(&received).unwrap().custom_id;
    assert_eq!(name, "i".repeat(line::MAX_CUSTOM_ID));
    assert_eq!(custom_id(b"plain", &sender), name);
}
