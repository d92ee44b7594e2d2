//! What is kept of a call whose prompt is logged: its request and answer, whole and redacted.

mod assemble;
mod redact;

use serde_json::{Value, json};

pub use self::redact::{Pattern, Redaction};
use super::event::UsageEvent;
use super::route::Operation;
use super::tree::is_too_large;

/// A call's request and answer, as they were on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The call.
    pub event: &'a UsageEvent,
    /// Its operation.
    pub operation: Operation,
    /// The request's body.
    pub request: &'a [u8],
    /// The answer's body as far as it was taken in.
    pub answer: &'a [u8],
    /// Bytes that the answer had, where more came than were taken in.
    pub answer_bytes: u64,
}

/// What is kept of one side.
#[derive(Debug)]
struct Side {
    content: Value,
    cut: bool,
}

impl Side {
    /// All of it.
    const fn whole(content: Value) -> Self {
        Self {
            content,
            cut: false,
        }
    }
}

/// The document that is kept, JSON. Request and answer stand in it as JSON where they are, a streamed
/// answer as the message it comes to, other text as text, and what is no text as `null`. Each has
/// at most about `max_bytes`; what has more is cut, and stands there as text. Everything that
/// `redaction` finds is replaced, before anything is cut. JSON with so many values that a tree of them
/// would take much memory stands there as text too, or as `null` where `redaction` has patterns.
pub fn document(exchange: &Exchange<'_>, redaction: &Redaction, max_bytes: usize) -> Value {
    let event = exchange.event;
    let mut redacted = 0;
    let mut side = |read: Side| {
        let (content, found) = redaction.apply(read.content);
        redacted += found;
        bounded(content, read.cut, max_bytes)
    };
    let request = side(read(exchange.request, redaction, max_bytes));
    let is_whole = as_u64(exchange.answer.len()) >= exchange.answer_bytes;
    let mut answer = if event.streamed {
        Side::whole(assemble::assemble(exchange.operation, exchange.answer))
    } else {
        read(exchange.answer, redaction, max_bytes)
    };
    answer.cut |= !is_whole;
    let answer = side(answer);
    json!({
        "id": event.id,
        "time": event.time.rfc3339(),
        "app": event.app,
        "user": event.user,
        "operation": event.operation,
        "model": event.model,
        "backend": event.backend,
        "deployment": event.deployment,
        "status": event.status,
        "outcome": event.outcome.as_str(),
        "streamed": event.streamed,
        "request": request.content,
        "request_bytes": exchange.request.len(),
        "request_cut": request.cut,
        "answer": answer.content,
        "answer_bytes": exchange.answer_bytes,
        "answer_cut": answer.cut,
        "redacted": redacted,
    })
}

/// A body as JSON, else as text, else as nothing.
fn read(body: &[u8], redaction: &Redaction, max_bytes: usize) -> Side {
    if is_too_large(body) {
        return as_written(body, redaction, max_bytes);
    }
    if body.is_empty() {
        return Side::whole(Value::Null);
    }
    Side::whole(serde_json::from_slice(body).unwrap_or_else(|_| text(body)))
}

/// A body of which no tree is made.
fn as_written(body: &[u8], redaction: &Redaction, max_bytes: usize) -> Side {
    if !redaction.is_empty() {
        // Patterns are for what its strings say. In how JSON writes them they could miss some of it: in
        // `\n4111` no word begins with the digits.
        return Side {
            content: Value::Null,
            cut: true,
        };
    }
    let part = body.get(..max_bytes).unwrap_or(body);
    Side {
        content: text(part),
        cut: part.len() < body.len(),
    }
}

/// A body as text; one that was cut within a character is text up to there.
fn text(body: &[u8]) -> Value {
    match std::str::from_utf8(body) {
        Ok(text) => text.into(),
        Err(odd) if odd.error_len().is_none() => {
            let whole = body.get(..odd.valid_up_to()).unwrap_or_default();
            String::from_utf8_lossy(whole).into()
        }
        Err(_) => Value::Null,
    }
}

fn bounded(content: Value, cut: bool, max_bytes: usize) -> Side {
    let text = match &content {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.len() <= max_bytes {
        return Side { content, cut };
    }
    let end = text.floor_char_boundary(max_bytes);
    let content = text.get(..end).unwrap_or_default().into();
    Side { content, cut: true }
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document_of(request: &[u8], answer: &[u8], redact: &[&str], max: usize) -> Value {
        let exchange = Exchange {
            event: &UsageEvent::default(),
            operation: Operation::ChatCompletions,
            request,
            answer,
            answer_bytes: as_u64(answer.len()),
        };
        let patterns = redact.iter().map(|text| text.parse().unwrap());
        document(&exchange, &Redaction::new(patterns.collect()), max)
    }

    #[test]
    fn json_stands_as_json_text_as_text_and_other_bytes_as_nothing() {
        let kept = document_of(br#"{"a":[1]}"#, b"plain", &[], 1000);
        assert_eq!(
            (&kept["request"], &kept["answer"]),
            (&json!({"a": [1]}), &json!("plain"))
        );
        let kept = document_of(b"\xff\x00", b"", &[], 1000);
        assert_eq!(
            (&kept["request"], &kept["answer"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(kept["request_bytes"], 2);
        assert_eq!(kept["request_cut"], false);
        let kept = document_of(
            "cut \u{e4}".as_bytes().split_last().unwrap().1,
            b"",
            &[],
            1000,
        );
        assert_eq!(kept["request"], "cut ");
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let long = format!(r#"{{"text":"{}"}}"#, "ü".repeat(100));
        let kept = document_of(long.as_bytes(), b"{}", &[], 60);
        let text = kept["request"].as_str().unwrap();
        assert!((57..=60).contains(&text.len()) && long.starts_with(text));
        assert_eq!(
            (&kept["request_cut"], &kept["answer_cut"]),
            (&json!(true), &json!(false))
        );
    }

    #[test]
    fn json_with_too_many_values_stands_as_text_and_not_at_all_where_it_would_be_redacted() {
        let bomb = format!("[{}0]", r#"{"":0},"#.repeat(60_000));
        for (max, cut) in [(1000, true), (1 << 20, false)] {
            let kept = document_of(bomb.as_bytes(), bomb.as_bytes(), &[], max);
            for (side, is_cut) in [("request", "request_cut"), ("answer", "answer_cut")] {
                let text = kept[side].as_str().unwrap();
                assert_eq!(text.len(), max.min(bomb.len()));
                assert!(bomb.starts_with(text));
                assert_eq!(kept[is_cut], cut);
            }
        }
        let kept = document_of(bomb.as_bytes(), b"{}", &["x"], 1000);
        assert_eq!(
            (&kept["request"], &kept["request_cut"]),
            (&Value::Null, &json!(true))
        );
        assert_eq!(kept["request_bytes"], bomb.len());
        let long = json!({"text": ",".repeat(300_000)});
        let kept = document_of(long.to_string().as_bytes(), b"", &["x"], 1 << 20);
        assert!(kept["request"] == long);
    }

    #[test]
    fn nothing_that_is_redacted_is_left_at_a_cut() {
        let request = format!(r#"{{"text":"{} 4111111111111111"}}"#, "x".repeat(30));
        for max in 0..80 {
            let kept = document_of(request.as_bytes(), b"", &[r"\b\d{16}\b"], max);
            assert!(!kept.to_string().contains("4111"), "{max}: {kept}");
            assert_eq!(kept["redacted"], 1);
        }
    }
}
