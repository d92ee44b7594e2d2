//! A message as the Functions host hands it to its function: `POST /batch`, byte for byte but for the
//! ids that the host makes up.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::gateway::batch::message::Received;
use crate::gateway::time::Timestamp;

/// When a message expires that never does: the last moment that .NET knows.
const NEVER: &str = "9999-12-31T23:59:59";

/// What the host knows beside the message.
#[derive(Clone, Debug)]
pub struct Host<'a> {
    /// The function.
    pub function: &'a str,
    /// The namespace.
    pub namespace: &'a str,
    /// The lock's token, a GUID.
    pub lock: &'a str,
    /// A GUID.
    pub random: &'a str,
    /// Now.
    pub now: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope<'a> {
    data: Data,
    metadata: Metadata<'a>,
}

#[derive(Serialize)]
struct Data {
    message: String,
}

/// In the host's order (azure-sdk-for-net, `ServiceBusTriggerBindingStrategy`). What is no object,
/// moment or bytes is JSON in a string; what is null is left out.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata<'a> {
    message_receiver: Value,
    message_session: Value,
    message_actions: Value,
    session_actions: Value,
    receive_actions: Value,
    client: Value,
    delivery_count: String,
    lock_token: String,
    expires_at_utc: String,
    expires_at: String,
    enqueued_time_utc: String,
    enqueued_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<String>,
    sequence_number: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    application_properties: &'a Map<String, Value>,
    user_properties: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to_session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition_key: Option<String>,
    #[serde(rename = "sys")]
    sys: Sys<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Sys<'a> {
    method_name: &'a str,
    utc_now: String,
    rand_guid: &'a str,
}

/// The invocation's body.
pub fn body(received: &Received, host: &Host<'_>) -> String {
    let message = &received.message;
    let quoted = |text: &Option<String>| text.as_ref().map(|text| json!(text).to_string());
    let expires = received.expires.map_or_else(|| NEVER.to_owned(), seconds);
    let enqueued = seconds(received.enqueued);
    let empty = || json!({});
    let envelope = Envelope {
        data: Data {
            message: STANDARD.encode(&message.body),
        },
        metadata: Metadata {
            message_receiver: empty(),
            message_session: empty(),
            message_actions: empty(),
            session_actions: empty(),
            receive_actions: empty(),
            client: json!({"FullyQualifiedNamespace": host.namespace, "IsClosed": false, "TransportType": 0}),
            delivery_count: received.deliveries.to_string(),
            lock_token: json!(host.lock).to_string(),
            expires_at: format!("{expires}+00:00"),
            expires_at_utc: expires,
            enqueued_time: format!("{enqueued}+00:00"),
            enqueued_time_utc: enqueued,
            message_id: quoted(&message.id),
            content_type: quoted(&message.content_type),
            reply_to: quoted(&message.reply_to),
            sequence_number: received.sequence.to_string(),
            to: quoted(&message.to),
            subject: quoted(&message.subject),
            label: quoted(&message.subject),
            correlation_id: quoted(&message.correlation_id),
            application_properties: &message.properties,
            user_properties: &message.properties,
            session_id: quoted(&message.session_id),
            reply_to_session_id: quoted(&message.reply_to_session_id),
            partition_key: quoted(&message.partition_key),
            sys: Sys {
                method_name: host.function,
                utc_now: host.now.rfc3339(),
                rand_guid: host.random,
            },
        },
    };
    // It has no map with keys that are no texts, so that it always has a JSON form.
    serde_json::to_string(&envelope).unwrap_or_default()
}

/// The host's moments have whole seconds and no zone.
fn seconds(moment: Timestamp) -> String {
    moment.rfc3339().chars().take(19).collect()
}

/// A GUID.
pub fn guid(random: u128) -> String {
    let digits = format!("{random:032x}");
    let mut guid = String::with_capacity(36);
    for (i, digit) in digits.chars().enumerate() {
        if matches!(i, 8 | 12 | 16 | 20) {
            guid.push('-');
        }
        guid.push(digit);
    }
    guid
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::batch::message::Message;

    /// A fixture of the host's, without what only the host can say.
    fn fixture(name: &str) -> (Value, String) {
        let file = format!(
            "{}/tests/fixtures/functions-host/{name}.json",
            env!("CARGO_MANIFEST_DIR")
        );
        let text = std::fs::read_to_string(file).unwrap();
        (serde_json::from_str(&text).unwrap(), text)
    }

    fn keys(text: &str) -> Vec<usize> {
        let names = [
            "MessageReceiver",
            "Client",
            "DeliveryCount",
            "LockToken",
            "ExpiresAtUtc",
            "ExpiresAt\"",
            "EnqueuedTimeUtc",
            "EnqueuedTime\"",
            "MessageId",
            "ContentType",
            "\"ReplyTo\"",
            "SequenceNumber",
            "\"To\"",
            "Subject",
            "Label",
            "\"CorrelationId",
            "ApplicationProperties",
            "UserProperties",
            "\"SessionId",
            "ReplyToSessionId",
            "PartitionKey",
            "\"sys\"",
        ];
        names
            .iter()
            .map(|name| text.find(name).unwrap_or_else(|| panic!("{name}")))
            .collect()
    }

    #[test]
    fn a_message_has_the_form_of_the_host_s_fixture() {
        let (mut wanted, text) = fixture("servicebus_single_props_replyto_session_binary");
        let metadata = &mut wanted["Metadata"];
        let properties = metadata["ApplicationProperties"]
            .as_object()
            .unwrap()
            .clone();
        let received = Received {
            message: Message {
                id: Some("msg-0002".into()),
                body: r#"{"id":"job-0002","messages":[]}"#.into(),
                content_type: Some("application/json".into()),
                correlation_id: Some("corr-42".into()),
                session_id: Some("session-7".into()),
                reply_to: Some("results".into()),
                reply_to_session_id: Some("reply-session-7".into()),
                subject: Some("chat.completions".into()),
                to: Some("requests".into()),
                partition_key: Some("session-7".into()),
                properties,
            },
            sequence: 281_474_976_710_659,
            deliveries: 3,
            enqueued: Timestamp::parse("2026-10-02T08:15:30Z").unwrap(),
            expires: Timestamp::parse("2026-10-16T08:15:30Z"),
        };
        let host = Host {
            function: "servicebus_process",
            namespace: "contoso.servicebus.windows.net",
            lock: "b5f0c1de-6f0a-4a53-9f7b-1a2b3c4d5e6f",
            random: "24ad4c06-24ad-4e5b-8294-3da9714877e9",
            now: Timestamp::parse("2026-10-02T08:15:31.220Z").unwrap(),
        };
        let made = body(&received, &host);
        let order = keys(&made);
        assert!(order.is_sorted() && keys(&text).is_sorted(), "{order:?}");
        // What the host's own objects hold is inferred, and nobody reads it.
        for name in [
            "MessageReceiver",
            "MessageSession",
            "MessageActions",
            "SessionActions",
        ] {
            metadata[name] = json!({});
        }
        metadata["Client"]
            .as_object_mut()
            .unwrap()
            .remove("Identifier");
        metadata["sys"]["UtcNow"] = "2026-10-02T08:15:31.220Z".into();
        assert_eq!(serde_json::from_str::<Value>(&made).unwrap(), wanted);
    }

    #[test]
    fn what_a_message_does_not_say_is_left_out() {
        let host = Host {
            function: "batch",
            namespace: "n",
            lock: "l",
            random: "r",
            now: Timestamp::default(),
        };
        let made: Value = serde_json::from_str(&body(&Received::default(), &host)).unwrap();
        let metadata = made["Metadata"].as_object().unwrap();
        assert!(!metadata.contains_key("ReplyTo") && !metadata.contains_key("MessageId"));
        assert_eq!(metadata["ExpiresAtUtc"], NEVER);
    }

    #[test]
    fn guids_have_their_form() {
        assert_eq!(
            guid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            "01234567-89ab-cdef-0123-456789abcdef"
        );
    }
}
