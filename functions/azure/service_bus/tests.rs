use super::*;

fn outgoing(properties: &Value) -> Outgoing {
    Outgoing {
        message: Message {
            id: Some("m-1".into()),
            body: "{\"a\":\"é\"}".into(),
            content_type: Some("application/json".into()),
            correlation_id: Some("k".into()),
            session_id: Some("sé".into()),
            reply_to: Some("results".into()),
            properties: properties.as_object().unwrap().clone(),
            ..Message::default()
        },
        // 1994-11-06T08:49:36.5Z
        scheduled: Some(Timestamp::from_unix_ms(784_111_776_500)),
        ttl_s: Some(90),
    }
}

#[test]
fn a_message_with_simple_properties_is_sent_with_them_as_headers() {
    let form = form(&outgoing(
        &json!({"app": "nightly", "spillway-deferrals": 3, "fast": false, "ratio": 0.5}),
    ))
    .unwrap();
    assert_eq!(form.headers["app"], "\"nightly\"");
    assert_eq!(form.headers["spillway-deferrals"], "3");
    assert_eq!(form.headers["fast"], "false");
    assert_eq!(form.headers["ratio"], "0.5");
    assert_eq!(form.headers[CONTENT_TYPE], "application/json");
    assert_eq!(&form.body[..], "{\"a\":\"é\"}".as_bytes());
    let broker = form.headers["brokerproperties"].to_str().unwrap();
    assert!(broker.contains("\"s\\u00e9\""), "{broker}");
    let broker: Value = serde_json::from_str(broker).unwrap();
    let expected = json!({
        "MessageId": "m-1", "CorrelationId": "k", "SessionId": "sé", "PartitionKey": "sé", "ReplyTo": "results",
        "TimeToLive": 90, "ScheduledEnqueueTimeUtc": "Sun, 06 Nov 1994 08:49:37 GMT",
    });
    assert_eq!(broker, expected);
}

#[test]
fn a_message_whose_properties_no_header_can_be_is_sent_as_a_batch_of_one() {
    for properties in [
        json!({"customerId": 7}),
        json!({"x": "a \"quoted\" text"}),
        json!({"x": "grüße"}),
        json!({"two words": "x"}),
        json!({"host": "evil"}),
        json!({"authorization": "evil"}),
        json!({"x": "a\r\nevil: 1"}),
        json!({"x": null}),
    ] {
        let form = form(&outgoing(&properties)).unwrap();
        assert_eq!(form.headers.len(), 1, "{properties}");
        assert_eq!(
            form.headers[CONTENT_TYPE],
            "application/vnd.microsoft.servicebus.json"
        );
        let body: Value = serde_json::from_slice(&form.body).unwrap();
        assert_eq!(body[0]["UserProperties"], properties);
        assert_eq!(body[0]["Body"], "{\"a\":\"é\"}");
        assert_eq!(body[0]["BrokerProperties"]["MessageId"], "m-1");
        assert_eq!(
            body[0]["BrokerProperties"]["ContentType"],
            "application/json"
        );
    }
}

#[test]
fn errors_say_who_has_to_act() {
    let of = |status: u16, detail: &str| error(StatusCode::from_u16(status).unwrap(), detail, None);
    assert!(matches!(of(413, ""), SendError::TooLarge(_)));
    for status in [400, 403] {
        let detail = "The maximum message size quota (262144) has been exceeded";
        assert!(
            matches!(of(status, detail), SendError::TooLarge(_)),
            "{status}"
        );
    }
    for status in [401, 403, 404, 410] {
        assert!(
            matches!(of(status, "40400: no"), SendError::Misconfigured(_)),
            "{status}"
        );
    }
    for status in [408, 429, 500, 503] {
        assert!(
            matches!(of(status, ""), SendError::Unavailable { .. }),
            "{status}"
        );
    }
    assert!(matches!(of(400, ""), SendError::Refused(_)));
}

#[test]
fn a_full_queue_takes_the_same_message_later() {
    for detail in [
        "40304: The quota has been exceeded",
        "The maximum entity size has been reached or exceeded for Queue: 'ns:queue:message-size'. Size of entity in bytes:5368728747, Max entity size in bytes: 5368709120. QuotaType: EntitySize (QuotaExceeded)",
    ] {
        let full = error(StatusCode::FORBIDDEN, detail, Some(7000));
        let SendError::Unavailable {
            why,
            retry_after_ms,
        } = full
        else {
            panic!("{full:?}")
        };
        assert_eq!(retry_after_ms, Some(7000));
        assert!(why.contains(detail), "{why}");
    }
}

#[test]
fn a_queue_s_name_is_part_of_a_path() {
    assert_eq!(encoded("team/results"), "team/results");
    assert_eq!(encoded("a?b #é"), "a%3Fb%20%23%C3%A9");
}
