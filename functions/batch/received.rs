//! A message out of the host's invocation.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::gateway::batch::message::{Message, Received};
use crate::host::invocation::{Invocation, InvocationError};

/// The binding's name in function.json.
const BINDING: &str = "message";

/// Reads the message of an invocation.
///
/// # Errors
/// When it has none.
pub fn read(invocation: &Invocation) -> Result<Received, InvocationError> {
    let text = |name: &str| invocation.text(name).filter(|text| !text.is_empty());
    let properties = invocation
        .value("ApplicationProperties")
        // What they were called before, and still are beside it.
        .or_else(|| invocation.value("UserProperties"));
    let message = Message {
        id: text("MessageId"),
        body: Bytes::from(invocation.binary(BINDING)?),
        content_type: text("ContentType"),
        correlation_id: text("CorrelationId"),
        session_id: text("SessionId"),
        reply_to: text("ReplyTo"),
        reply_to_session_id: text("ReplyToSessionId"),
        subject: text("Subject").or_else(|| text("Label")),
        to: text("To"),
        partition_key: text("PartitionKey"),
        properties: match properties {
            Some(Value::Object(map)) => map,
            _ => Map::new(),
        },
    };
    let moment = |names: [&str; 2]| names.into_iter().find_map(|name| invocation.moment(name));
    Ok(Received {
        message,
        sequence: invocation.number("SequenceNumber").unwrap_or(0),
        deliveries: invocation.number("DeliveryCount").unwrap_or(1),
        enqueued: moment(["EnqueuedTimeUtc", "EnqueuedTime"]).unwrap_or_default(),
        expires: moment(["ExpiresAtUtc", "ExpiresAt"]),
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::*;

    #[test]
    fn the_host_s_form_is_read_whole() {
        let body = include_bytes!(
            "../../tests/fixtures/functions-host/servicebus_single_props_replyto_session_binary.json"
        );
        let received = read(&Invocation::read(&HeaderMap::new(), body).unwrap()).unwrap();
        let message = &received.message;
        assert_eq!(message.id.as_deref(), Some("msg-0002"));
        assert_eq!(message.reply_to.as_deref(), Some("results"));
        assert_eq!(
            message.reply_to_session_id.as_deref(),
            Some("reply-session-7")
        );
        assert_eq!(message.correlation_id.as_deref(), Some("corr-42"));
        assert_eq!(message.session_id.as_deref(), Some("session-7"));
        assert_eq!(message.subject.as_deref(), Some("chat.completions"));
        assert_eq!(message.properties["x-team"], "alpha");
        assert_eq!(message.body, r#"{"id":"job-0002","messages":[]}"#);
        assert_eq!(
            (received.sequence, received.deliveries),
            (281_474_976_710_659, 3)
        );
        assert_eq!(received.enqueued.rfc3339(), "2026-10-02T08:15:30.000Z");
        assert_eq!(
            received.expires.unwrap().rfc3339(),
            "2026-10-16T08:15:30.000Z"
        );
    }

    #[test]
    fn a_body_that_names_a_reply_address_does_not_set_it() {
        let body = include_bytes!(
            "../../tests/fixtures/functions-host/servicebus_single_json_binary.json"
        );
        let received = read(&Invocation::read(&HeaderMap::new(), body).unwrap()).unwrap();
        assert_eq!(received.message.reply_to, None);
    }
}
