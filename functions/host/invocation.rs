//! A trigger's invocation, as the Functions host sends it, and the answers that it takes.
//!
//! The host posts `{"Data":{<binding>:value},"Metadata":{...}}` (azure-functions-host,
//! `ScriptInvocationContextExtensions.GetHttpScriptInvocationContextValue`). Bytes are base64,
//! objects are objects, and everything else is JSON in a string: `"DeliveryCount":"3"`,
//! `"MessageId":"\"abc\""`.

use std::fmt;

use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::gateway::time::Timestamp;

/// The header with an invocation's id. The host sends it with trigger invocations and through the
/// proxy, but not with its readiness probe.
pub const INVOCATION_ID: &str = "x-azure-functions-invocationid";

/// What a trigger function is invoked with.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The host's name for it, for the log; empty where it named none.
    pub id: String,
    body: Envelope,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope {
    data: Map<String, Value>,
    #[serde(default)]
    metadata: Map<String, Value>,
}

/// Why an invocation could not be read. It is the host's mistake or function.json's, not that of
/// whoever sent a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvocationError {
    /// The body is not of the host's form.
    Malformed(String),
    /// The function's binding is not among the data.
    Missing {
        /// The binding's name, as function.json should have it.
        binding: String,
    },
    /// The binding's value is not of the kind that its function.json asks for.
    Unreadable {
        /// The binding's name.
        binding: String,
        /// What was wrong.
        why: String,
    },
}

impl fmt::Display for InvocationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "the invocation is not of the host's form: {why}"),
            Self::Missing { binding } => write!(
                f,
                "the invocation has no data of the binding `{binding}`: function.json has to name it so"
            ),
            Self::Unreadable { binding, why } => {
                write!(f, "the binding `{binding}` can't be read: {why}")
            }
        }
    }
}

impl std::error::Error for InvocationError {}

impl Invocation {
    /// Reads an invocation.
    ///
    /// # Errors
    /// When the body is not of the host's form.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, InvocationError> {
        let id = headers.get(INVOCATION_ID);
        let id = id.and_then(|id| id.to_str().ok()).unwrap_or_default();
        let body = serde_json::from_slice(body)
            .map_err(|error| InvocationError::Malformed(error.to_string()))?;
        Ok(Self {
            id: id.to_owned(),
            body,
        })
    }

    /// The bytes of a binding of one message.
    ///
    /// # Errors
    /// When the binding is not there or holds no bytes.
    pub fn binary(&self, binding: &str) -> Result<Vec<u8>, InvocationError> {
        bytes(self.data(binding)?).map_err(|why| unreadable(binding, why))
    }

    /// The bytes of each message of a binding of many.
    ///
    /// # Errors
    /// When the binding is not there or is no array of bytes.
    pub fn binaries(&self, binding: &str) -> Result<Vec<Vec<u8>>, InvocationError> {
        let Value::Array(elements) = unwrapped(self.data(binding)?) else {
            return Err(unreadable(binding, "it is no array; function.json has to say \"cardinality\": \"many\" and \"dataType\": \"binary\"".into()));
        };
        // One that is null is empty: an error would hold up all others, and those that come after.
        let bytes = elements.iter().map(|one| match one {
            Value::Null => Ok(Vec::new()),
            one => bytes(one),
        });
        bytes
            .collect::<Result<_, _>>()
            .map_err(|why| unreadable(binding, why))
    }

    /// A binding's object, such as a timer's.
    ///
    /// # Errors
    /// When the binding is not there or is no object.
    pub fn object(&self, binding: &str) -> Result<Map<String, Value>, InvocationError> {
        match unwrapped(self.data(binding)?) {
            Value::Object(object) => Ok(object),
            _ => Err(unreadable(binding, "it is no object".into())),
        }
    }

    fn data(&self, binding: &str) -> Result<&Value, InvocationError> {
        let missing = || InvocationError::Missing {
            binding: binding.to_owned(),
        };
        self.body.data.get(binding).ok_or_else(missing)
    }

    /// What the broker says of the message under this name. `None` where it says nothing, or null.
    pub fn value(&self, name: &str) -> Option<Value> {
        let value = unwrapped(self.body.metadata.get(name)?);
        (!value.is_null()).then_some(value)
    }

    /// As [`Self::value`], where it is a text or a number.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.body.metadata.get(name)? {
            // A message may be called "5": only what was a string within JSON is unwrapped.
            Value::String(text) => match serde_json::from_str(text) {
                Ok(Value::String(inner)) => Some(inner),
                Ok(Value::Null) => None,
                _ => Some(text.clone()),
            },
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// As [`Self::value`], where it is a whole number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.value(name)?.as_u64()
    }

    /// As [`Self::value`], where it is a moment. The host leaves out its zone, which is UTC in
    /// names that end in `Utc`.
    pub fn moment(&self, name: &str) -> Option<Timestamp> {
        Timestamp::parse(&self.text(name)?)
    }

    /// What the broker says of each message of a binding of many, for example `PropertiesArray`;
    /// empty where it says nothing.
    pub fn array(&self, name: &str) -> Vec<Value> {
        match self.value(name) {
            Some(Value::Array(values)) => values,
            _ => Vec::new(),
        }
    }
}

fn unreadable(binding: &str, why: String) -> InvocationError {
    InvocationError::Unreadable {
        binding: binding.to_owned(),
        why,
    }
}

/// A value without the string that the host may have put it in.
fn unwrapped(value: &Value) -> Value {
    match value {
        Value::String(text) => serde_json::from_str(text).unwrap_or_else(|_| value.clone()),
        other => other.clone(),
    }
}

/// A message's bytes. `"dataType": "binary"` gives base64; the other forms are taken as well, as a
/// function.json that somebody edited must not lose messages.
fn bytes(value: &Value) -> Result<Vec<u8>, String> {
    match value {
        Value::String(text) => match STANDARD.decode(text) {
            Ok(bytes) => Ok(bytes),
            // No base64 begins with a quote.
            Err(_) => match serde_json::from_str(text) {
                Ok(Value::String(inner)) => Ok(inner.into_bytes()),
                _ => Ok(text.clone().into_bytes()),
            },
        },
        Value::Null => Err("a message is null".into()),
        other => Ok(other.to_string().into_bytes()),
    }
}

/// The answer of a function that has done its work. Its body must not be empty: the host would
/// wait for the invocation's result until functionTimeout, and kill the process.
pub fn done() -> Response {
    Json(json!({"Outputs": {}, "Logs": [], "ReturnValue": null})).into_response()
}

/// The answer of a function that has not: the host retries or abandons, as the trigger's rules
/// are. It throws the body away, so `why` goes to the log as well.
pub fn failed(function: &str, why: &dyn fmt::Display) -> Response {
    tracing::error!(function, %why, "the invocation failed");
    let body = json!({"error": {"code": "invocation_failed", "message": why.to_string()}});
    let mut answer = Json(body).into_response();
    *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(body: &str) -> Invocation {
        Invocation::read(&HeaderMap::new(), body.as_bytes()).unwrap()
    }

    macro_rules! host {
        ($name:literal) => {
            fixture(include_str!(concat!(
                "../../tests/fixtures/functions-host/",
                $name,
                ".json"
            )))
        };
    }

    #[test]
    fn a_service_bus_message_is_read_with_what_the_broker_says_of_it() {
        let message = host!("servicebus_single_props_replyto_session_binary");
        let body = message.binary("message").unwrap();
        assert_eq!(body, br#"{"id":"job-0002","messages":[]}"#);
        assert_eq!(message.text("MessageId").as_deref(), Some("msg-0002"));
        assert_eq!(message.text("ReplyTo").as_deref(), Some("results"));
        assert_eq!(message.number("DeliveryCount"), Some(3));
        let expires = message.moment("ExpiresAtUtc").unwrap();
        assert_eq!(expires.rfc3339(), "2026-10-16T08:15:30.000Z");
        let properties = message.value("ApplicationProperties").unwrap();
        assert_eq!(properties["priority"], 5);
        assert_eq!(message.value("TransactionPartitionKey"), None);
    }

    #[test]
    fn a_message_is_the_same_bytes_whatever_data_type_function_json_asks_for() {
        let forms = [
            (
                host!("servicebus_single_text_binary"),
                host!("servicebus_single_text_string"),
            ),
            (
                host!("servicebus_single_json_binary"),
                host!("servicebus_single_json_string"),
            ),
        ];
        for (binary, string) in forms {
            assert_eq!(binary.binary("message"), string.binary("message"));
        }
        let many = host!("eventhub_batch3_binary").binaries("events").unwrap();
        assert_eq!(
            many,
            host!("eventhub_batch3_string").binaries("events").unwrap()
        );
        assert_eq!(many.len(), 3);
    }

    #[test]
    fn a_batch_of_events_is_read_with_what_the_hub_says_of_each() {
        let batch = host!("eventhub_batch3_binary");
        assert_eq!(batch.binaries("events").unwrap()[2], br#"{"id":"e3"}"#);
        assert_eq!(batch.array("SequenceNumberArray"), [59, 60, 61]);
        assert_eq!(batch.array("PropertiesArray")[1]["source"], "relay");
        assert_eq!(batch.value("PartitionContext").unwrap()["PartitionId"], "2");
        let again = host!("eventhub_batch3_binary_retry");
        assert!(again.value("RetryContext").is_some());
        let objects = host!("eventhub_batch3_no_datatype");
        assert_eq!(objects.binaries("events").unwrap().len(), 3);
    }

    #[test]
    fn a_timer_is_an_object() {
        let timer = host!("timer").object("timer").unwrap();
        assert_eq!(timer["IsPastDue"], false);
        let first = host!("timer_first_run_no_monitor_pastdue");
        assert_eq!(first.object("timer").unwrap()["IsPastDue"], true);
    }

    #[test]
    fn what_is_no_invocation_is_said() {
        let read = |body: &str| Invocation::read(&HeaderMap::new(), body.as_bytes());
        for body in ["", "null", "[]", "{}", "{\"Data\":[]}"] {
            assert!(
                matches!(read(body), Err(InvocationError::Malformed(_))),
                "{body}"
            );
        }
        let other = fixture(r#"{"Data":{"x":null}}"#);
        let error = other.binary("message").unwrap_err();
        assert!(error.to_string().contains("`message`"), "{error}");
        assert!(other.binary("x").is_err() && other.binaries("x").is_err());
        assert!(other.object("x").is_err());
    }

    #[test]
    fn a_message_that_is_called_by_a_number_keeps_its_name() {
        let called = |id: &str| {
            fixture(&json!({"Data": {}, "Metadata": {"MessageId": id}}).to_string())
                .text("MessageId")
        };
        assert_eq!(called("\"5\"").as_deref(), Some("5"));
        assert_eq!(called("5").as_deref(), Some("5"));
        assert_eq!(called("\"a \\\"b\\\"\"").as_deref(), Some("a \"b\""));
    }
}
