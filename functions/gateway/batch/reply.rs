//! What a message's sender gets: one line of OpenAI's batch output format (API reference, "The
//! request output object").

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::fault::Fault;
use super::message::{Message, Outgoing};
use super::order::{Sender, bounded};

/// The content type of replies.
const JSON: &str = "application/json";

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An answer of a backend or of the gateway, whole.
    Response {
        /// Its status.
        status: u16,
        /// The id of the call that brought it.
        request_id: String,
        /// Its body.
        body: Bytes,
    },
    /// None: the message was not, or could not be, asked.
    Error {
        /// The word by which programs know it.
        code: String,
        /// What is wrong and what to do.
        message: String,
    },
}

impl From<&Fault> for Answer {
    fn from(fault: &Fault) -> Self {
        Self::Error {
            code: fault.code().to_owned(),
            message: fault.to_string(),
        }
    }
}

/// Where an answer lies that no message can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// The path by which its app gets it.
    pub url: String,
    /// Its size, bytes.
    pub bytes: usize,
}

/// The path by which its app gets a request's answer. `~` and what else ids mostly have need no
/// encoding.
pub fn fetch_path(key: &str) -> String {
    let mut path = String::from("/spillway/requests/");
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path += &format!("%{byte:02X}");
        }
    }
    path
}

/// The line that answers a request.
pub fn line(sender: &Sender, custom_id: &str, answer: &Answer) -> Bytes {
    line_of(&line_id(sender), custom_id, answer)
}

/// The line of this id that answers a request.
pub fn line_of(id: &str, custom_id: &str, answer: &Answer) -> Bytes {
    match answer {
        Answer::Response {
            status,
            request_id,
            body,
        } => {
            let mut line = BytesMut::with_capacity(body.len() + 300);
            let start = format!(
                "{{\"id\":{},\"custom_id\":{},\"response\":{{\"status_code\":{status},\"request_id\":{},\"body\":",
                quoted(id),
                quoted(custom_id),
                quoted(request_id),
            );
            line.put_slice(start.as_bytes());
            put_json(&mut line, body);
            line.put_slice(b"},\"error\":null}");
            line.freeze()
        }
        Answer::Error { code, message } => {
            let line = json!({
                "id": id,
                "custom_id": custom_id,
                "response": null,
                "error": {"code": code, "message": message},
            });
            line.to_string().into()
        }
    }
}

/// The line whose answer lies elsewhere.
pub fn pointer_line(sender: &Sender, custom_id: &str, answer: &Answer, to: &Pointer) -> Bytes {
    let response = match answer {
        Answer::Response {
            status, request_id, ..
        } => json!({"status_code": status, "request_id": request_id, "body": null}),
        Answer::Error { .. } => Value::Null,
    };
    let line = json!({
        "id": line_id(sender),
        "custom_id": custom_id,
        "response": response,
        "error": null,
        "claim_check": {"url": to.url, "bytes": to.bytes},
    });
    line.to_string().into()
}

/// How the reply differs from others to the same message: whoever sends it again sends the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// The answer.
    Final,
    /// That the message of this sequence number is given up and dead-lettered; somebody may put it
    /// back into the queue and have it answered after all.
    Dead(u64),
}

/// The message that carries a reply; `None` where nobody awaits one.
pub fn message(
    sender: &Sender,
    custom_id: &str,
    body: Bytes,
    sort: Sort,
    properties: Map<String, Value>,
) -> Option<(String, Outgoing)> {
    let queue = sender.address.queue.clone()?;
    let mut all = properties;
    all.insert("request-id".into(), sender.id.clone().into());
    all.insert("custom-id".into(), custom_id.into());
    if !sender.app.is_empty() {
        all.insert("app".into(), sender.app.clone().into());
    }
    let session = sender.address.session.clone();
    let message = Message {
        id: Some(reply_id(sender, sort)),
        body,
        content_type: Some(JSON.into()),
        correlation_id: sender.address.correlation.clone(),
        session_id: session,
        properties: all,
        ..Message::default()
    };
    let outgoing = Outgoing {
        message,
        scheduled: None,
        ttl_s: None,
    };
    Some((queue, outgoing))
}

fn reply_id(sender: &Sender, sort: Sort) -> String {
    match sort {
        Sort::Final => bounded(&format!("{}~reply", sender.key)),
        Sort::Dead(sequence) => bounded(&format!("{}~dead-{sequence}", sender.key)),
    }
}

/// The same for each delivery of a message, in the form that OpenAI's have.
fn line_id(sender: &Sender) -> String {
    let hash = Sha256::digest(sender.key.as_bytes());
    let digits = hash.iter().take(12).map(|byte| format!("{byte:02x}"));
    digits.fold("batch_req_".to_owned(), |id, two| id + &two)
}

fn quoted(text: &str) -> String {
    // A string always has a JSON form.
    serde_json::to_string(text).unwrap_or_default()
}

/// Puts an answer's body into a line: as it is where it is JSON, but for its line ends, which in
/// JSON stand between tokens only; as a text where it is not.
fn put_json(line: &mut BytesMut, body: &[u8]) {
    if serde_json::from_slice::<&RawValue>(body).is_ok() {
        let one_line = body.iter().map(|byte| match byte {
            b'\n' | b'\r' => b' ',
            other => *other,
        });
        line.extend(one_line);
    } else {
        line.put_slice(quoted(&String::from_utf8_lossy(body)).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::order::Address;
    use super::*;
    use crate::gateway::time::Timestamp;

    fn sender() -> Sender {
        Sender {
            id: "m-1".into(),
            app: "nightly".into(),
            key: "m-1~0123".into(),
            address: Address {
                queue: Some("results".into()),
                session: Some("s".into()),
                correlation: Some("k".into()),
            },
            refused_address: None,
            deferrals: 0,
            first: Timestamp::from_unix_ms(0),
        }
    }

    fn read(line: &[u8]) -> Value {
        assert!(!line.contains(&b'\n'));
        serde_json::from_slice(line).unwrap()
    }

    #[test]
    fn an_answer_becomes_one_line_with_its_body_as_it_was() {
        let response = |body: &'static str| Answer::Response {
            status: 200,
            request_id: "01J".into(),
            body: Bytes::from_static(body.as_bytes()),
        };
        let line = line(
            &sender(),
            "c\"1",
            &response("{\n \"a\": [1.50,\r\n \"x\\ny\"]}\n"),
        );
        let text = std::str::from_utf8(&line).unwrap();
        assert!(text.contains("1.50"), "numbers keep their digits: {text}");
        let line = read(&line);
        assert_eq!(line["custom_id"], "c\"1");
        assert_eq!(line["response"]["status_code"], 200);
        assert_eq!(line["response"]["request_id"], "01J");
        assert_eq!(line["response"]["body"]["a"][1], "x\ny");
        assert!(line["error"].is_null());
        let text = read(&super::line(&sender(), "c", &response("no \"JSON\"\n")));
        assert_eq!(text["response"]["body"], "no \"JSON\"\n");
    }

    #[test]
    fn a_fault_becomes_a_line_that_says_what_is_wrong() {
        let line = read(&line(&sender(), "c", &Answer::from(&Fault::NoModel)));
        assert_eq!(line["error"]["code"], "model_missing");
        assert!(line["response"].is_null());
        assert!(line["id"].as_str().unwrap().starts_with("batch_req_"));
    }

    #[test]
    fn a_reply_is_known_by_its_request_and_the_same_whenever_it_is_made() {
        let make = |sort| message(&sender(), "c", Bytes::new(), sort, Map::new()).unwrap();
        let (queue, reply) = make(Sort::Final);
        assert_eq!(queue, "results");
        assert_eq!(reply.message.id.as_deref(), Some("m-1~0123~reply"));
        assert_eq!(reply.message.session_id.as_deref(), Some("s"));
        assert_eq!(reply.message.correlation_id.as_deref(), Some("k"));
        assert_eq!(reply.message.properties["request-id"], "m-1");
        assert_eq!(reply, make(Sort::Final).1);
        assert_ne!(
            make(Sort::Dead(7)).1.message.id,
            make(Sort::Dead(8)).1.message.id
        );
        let mut fetched = sender();
        fetched.address.queue = None;
        assert_eq!(
            message(&fetched, "c", Bytes::new(), Sort::Final, Map::new()),
            None
        );
    }
}
