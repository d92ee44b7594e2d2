use serde_json::json;

use super::*;
use crate::gateway::service_tier::ServiceTier;

fn try_read(value: &Value) -> Result<UsageEvent, String> {
    let delivered = Delivered {
        body: value.to_string().into(),
        place: "hub|0|7".into(),
        enqueued: Some(Timestamp::from_unix_ms(5)),
    };
    let apps = [("0f8f-ab".to_owned(), "portal".into())].into();
    read(&delivered, &apps)
}

fn policy() -> Value {
    json!({"event-time": "11/23/2026 5:06:30 PM", "appid": "0F8F-AB",
        "operation": "chat.completion", "model": "gpt-35-turbo", "modeltime": "412.5",
        "completion_tokens": "6", "prompt_tokens": "14", "total_tokens": "20"})
}

#[test]
fn the_api_management_policys_events_are_read() {
    let read = try_read(&policy()).unwrap();
    assert_eq!((&*read.app, &*read.model), ("portal", "gpt-35-turbo"));
    assert_eq!((read.tokens.input, read.tokens.output), (14, 6));
    assert_eq!((read.total_ms, read.status), (412, 200));
    assert_eq!(read.time.rfc3339(), "2026-11-23T17:06:30.000Z");
    assert_eq!(
        (read.usage, read.outcome),
        (UsageSource::Reported, Outcome::Completed)
    );
}

#[test]
fn moments_are_read_in_the_forms_that_dotnet_writes() {
    for text in [
        "11/23/2026 17:06:30",
        "11/23/2026 5:06:30 PM",
        "2026-11-23T17:06:30Z",
    ] {
        let read = moment(text).map(Timestamp::rfc3339);
        assert_eq!(read.as_deref(), Some("2026-11-23T17:06:30.000Z"), "{text}");
    }
    let mut event = policy();
    event["event-time"] = "23. November".into();
    assert_eq!(try_read(&event).unwrap().time.unix_ms(), 5, "the hub's");
}

#[test]
fn a_moment_may_be_a_number_of_seconds_or_milliseconds_or_its_text() {
    let whole = 1_795_453_590_000;
    for (time, ms) in [
        (json!(1_795_453_590_u64), whole),
        (json!("1795453590"), whole),
        (json!(1_795_453_590.25), whole + 250),
        (json!("1795453590.2509"), whole + 250),
        (json!(1_795_453_590_000_u64), whole),
        (json!(" 1795453590000 "), whole),
        (json!("1795453590000.9"), whole),
        (json!(9_999_999_999_u64), 9_999_999_999_000),
        (json!(10_000_000_000_u64), 5),
        (json!(99_999_999_999_u64), 5),
        (json!(100_000_000_000_u64), 100_000_000_000),
        (json!(-1), 5),
        (json!("20261123"), 5),
        (json!("9999999999999"), 9_999_999_999_999),
        (json!("20261123170630"), 5),
        (json!("1795453590000000"), 5),
        (json!("639308295300000000"), 5),
    ] {
        let mut event = policy();
        event["event-time"] = time.clone();
        assert_eq!(try_read(&event).unwrap().time.unix_ms(), ms, "{time}");
    }
}

#[test]
fn an_event_of_the_relays_form_may_count_in_seconds_too() {
    let event = UsageEvent {
        id: "01J".into(),
        app: "portal".into(),
        time: Timestamp::from_unix_ms(1_795_453_590_000),
        ..UsageEvent::default()
    };
    let mut json = serde_json::to_value(&event).unwrap();
    for time in [1_795_453_590_u64, 1_795_453_590_000] {
        json["time"] = time.into();
        assert_eq!(try_read(&json).as_ref(), Ok(&event));
    }
}

#[test]
fn tokens_and_tier_of_others_are_read_by_their_names() {
    let mut event = policy();
    event["tokens"] = json!({"input": 9, "cached": "7", "audio_input": 8, "cached_audio": "6"});
    for (word, tier) in [
        ("priority", ServiceTier::Priority),
        ("default", ServiceTier::Standard),
    ] {
        event["service_tier"] = word.into();
        let read = try_read(&event).unwrap();
        assert_eq!(read.service_tier, tier);
        let tokens = read.tokens;
        assert_eq!((tokens.cached, tokens.cached_audio), (7, 6));
        assert_eq!((tokens.audio_input, tokens.cached_image), (8, 0));
    }
}

#[test]
fn an_event_without_an_id_has_the_same_one_whenever_it_is_delivered() {
    let ids = [policy(), policy()].map(|event| try_read(&event).unwrap().id);
    assert_eq!(ids[0], ids[1]);
    let elsewhere = Delivered {
        body: policy().to_string().into(),
        place: "hub|0|8".into(),
        enqueued: None,
    };
    let other = read(&elsewhere, &Apps::new());
    assert_ne!(
        other.unwrap().id,
        ids[0],
        "the same call again is another event"
    );
}

#[test]
fn the_relays_events_come_back_as_they_went() {
    let event = UsageEvent {
        id: "01J".into(),
        app: "portal".into(),
        kind: Some(Kind::Ptu),
        ..UsageEvent::default()
    };
    assert_eq!(try_read(&serde_json::to_value(&event).unwrap()), Ok(event));
}

#[test]
fn what_is_no_event_is_said() {
    let with = |name: &str, value: Value| {
        let mut event = policy();
        event[name] = value;
        event
    };
    for (event, said) in [
        (json!([1]), "no JSON object"),
        (json!({"id": "e3"}), "no tokens"),
        (json!({"id": "e1", "tokens": 12}), "no tokens"),
        (json!({"prompt_tokens": 1}), "nobody would pay"),
        (with("prompt_tokens", "many".into()), "`prompt_tokens`"),
        (
            with("completion_tokens", (-1).into()),
            "`completion_tokens`",
        ),
        (with("appid", "".into()), "nobody would pay"),
        (with("model", "x".repeat(65).into()), "`model`"),
        (with("id", "x".repeat(129).into()), "`id`"),
        (with("kind", "batch".into()), "`kind`"),
        (with("status", 70_000.into()), "`status`"),
        (
            with(
                "attempts",
                json!([{"backend": "x".repeat(65), "deployment": "d", "kind": "ptu", "ms": 1, "billed": true}]),
            ),
            "`attempts.backend`",
        ),
    ] {
        let why = try_read(&event).unwrap_err();
        assert!(why.contains(said), "{event}: {why}");
    }
    let none = Delivered {
        body: vec![0xFF],
        ..Delivered::default()
    };
    assert!(read(&none, &Apps::new()).unwrap_err().contains("no JSON"));
}
