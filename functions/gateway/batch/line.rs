//! Reads a message's body: a line of OpenAI's batch input format, or the request alone.
//!
//! The request itself is not touched: what goes to a backend is a slice of what the sender wrote.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::fault::Fault;
use crate::gateway::request::{BodyError, Head};

/// The operations that a batch can ask for: those whose request and answer are JSON and whose
/// answer is not kept by the backend under a URL of its own.
const OPERATIONS: [&str; 5] = [
    "chat/completions",
    "completions",
    "embeddings",
    "responses",
    "images/generations",
];

/// What URLs of a batch line begin with: OpenAI's own form, Azure's, and the gateway's.
const PREFIXES: [&str; 3] = ["/openai/v1/", "/v1/", "/"];

/// Longest `custom_id`, characters: it stands in a row, in a property of the reply and in a line of
/// results, beside what these are for.
pub const MAX_CUSTOM_ID: usize = 512;

/// A body, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The sender's own name for the request, where the body has one.
    pub custom_id: Option<String>,
    /// The path to call, in the v1 form.
    pub path: String,
    /// The model.
    pub model: String,
    /// The request.
    pub request: Bytes,
}

/// A line of a batch file (OpenAI API reference, "The request input object").
#[derive(Deserialize)]
struct Outer<'a> {
    #[serde(default)]
    custom_id: Option<String>,
    #[serde(default, borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    url: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    body: Option<&'a RawValue>,
    #[serde(default, borrow)]
    model: Option<&'a RawValue>,
    #[serde(default, borrow)]
    messages: Option<&'a RawValue>,
    #[serde(default, borrow)]
    prompt: Option<&'a RawValue>,
    #[serde(default, borrow)]
    input: Option<&'a RawValue>,
}

/// Reads a body; `url` is what the message's properties say of where it goes.
///
/// # Errors
/// What is wrong with it.
pub fn read(body: &Bytes, url: Option<&str>) -> Result<Line, Fault> {
    let body = unwrapped(body)?;
    // Says where a body is no JSON or no object.
    Head::parse(&body).map_err(Fault::Body)?;
    let outer: Outer<'_> =
        serde_json::from_slice(&body).map_err(|error| Fault::Body(at(&error)))?;
    let named = outer.custom_id.as_deref().unwrap_or_default();
    if clipped(named) != named {
        return Err(Fault::CustomId {
            characters: named.chars().count(),
        });
    }
    let (request, url) = match outer.body {
        Some(inner) => {
            let named = outer.url.as_deref().or(url);
            (body.slice_ref(inner.get().as_bytes()), named)
        }
        None if outer.model.is_some() || has_prompt(&outer) => (body.clone(), url),
        None => return Err(Fault::Shapeless),
    };
    if let Some(method) = outer
        .method
        .as_deref()
        .filter(|m| !m.eq_ignore_ascii_case("POST"))
    {
        return Err(Fault::Method(method.to_owned()));
    }
    let path = match url {
        Some(url) => path(url).ok_or_else(|| Fault::Url(url.to_owned()))?,
        None => guessed(&request)?,
    };
    let head = Head::parse(&request).map_err(Fault::Body)?;
    if head.stream() {
        return Err(Fault::Streams);
    }
    let model = head.model().map_err(Fault::Body)?.ok_or(Fault::NoModel)?;
    Ok(Line {
        custom_id: outer.custom_id,
        path,
        model: model.into_owned(),
        request,
    })
}

/// The sender's name for a request, as far as it can be read of a body that has something wrong with
/// it, and no longer than names may be.
pub fn custom_id(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        custom_id: String,
    }
    let named: Named = serde_json::from_slice(body).ok()?;
    Some(clipped(&named.custom_id).to_owned())
}

/// As much of a name as one may have.
pub fn clipped(name: &str) -> &str {
    let end = name.char_indices().nth(MAX_CUSTOM_ID).map(|(at, _)| at);
    end.and_then(|end| name.get(..end)).unwrap_or(name)
}

fn has_prompt(outer: &Outer<'_>) -> bool {
    outer.messages.is_some() || outer.prompt.is_some() || outer.input.is_some()
}

/// The body without what some clients put around it: a byte order mark, or JSON in a JSON string,
/// which `@azure/service-bus` makes of a `body` that is a string.
fn unwrapped(body: &Bytes) -> Result<Bytes, Fault> {
    let body = match body.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => body.slice_ref(rest),
        None => body.clone(),
    };
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'"') {
        return Ok(body);
    }
    let inner: String = serde_json::from_slice(&body).map_err(|error| Fault::Body(at(&error)))?;
    Ok(inner.into())
}

fn at(error: &serde_json::Error) -> BodyError {
    BodyError::whole(error.to_string())
}

/// The v1 path of an operation that a batch can ask for.
pub fn path(url: &str) -> Option<String> {
    let named = |prefix: &&str| {
        let operation = url.strip_prefix(*prefix)?;
        OPERATIONS.contains(&operation).then_some(operation)
    };
    let operation = PREFIXES.iter().find_map(named)?;
    Some(format!("/v1/{operation}"))
}

/// The path of a request that comes alone, by what it has.
fn guessed(request: &[u8]) -> Result<String, Fault> {
    let outer: Outer<'_> =
        serde_json::from_slice(request).map_err(|error| Fault::Body(at(&error)))?;
    match outer {
        Outer {
            messages: Some(_), ..
        } => Ok("/v1/chat/completions".into()),
        Outer {
            prompt: Some(_), ..
        } => Ok("/v1/completions".into()),
        Outer { input: Some(_), .. } => Err(Fault::Ambiguous),
        _ => Err(Fault::Shapeless),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str, url: Option<&str>) -> Result<Line, Fault> {
        read(&Bytes::copy_from_slice(body.as_bytes()), url)
    }

    const REQUEST: &str = r#"{"model":"gpt-4o",  "messages":[{"role":"user","content":"Hi"}]}"#;

    #[test]
    fn a_line_of_a_batch_file_is_read_and_its_request_kept_as_it_is() {
        for url in [
            "/v1/chat/completions",
            "/chat/completions",
            "/openai/v1/chat/completions",
        ] {
            let body =
                format!(r#"{{"custom_id":"a-1","method":"POST","url":"{url}","body":{REQUEST}}}"#);
            let line = of(&body, None).unwrap();
            assert_eq!(line.custom_id.as_deref(), Some("a-1"));
            assert_eq!(line.path, "/v1/chat/completions");
            assert_eq!(
                (&*line.model, &line.request[..]),
                ("gpt-4o", REQUEST.as_bytes())
            );
        }
    }

    #[test]
    fn a_request_alone_says_by_its_keys_where_it_goes() {
        let line = of(REQUEST, None).unwrap();
        assert_eq!(
            (&*line.path, line.custom_id),
            ("/v1/chat/completions", None)
        );
        let completion = of(r#"{"model":"m","prompt":"x"}"#, None).unwrap();
        assert_eq!(completion.path, "/v1/completions");
        let input = r#"{"model":"m","input":"x"}"#;
        assert_eq!(of(input, None), Err(Fault::Ambiguous));
        assert_eq!(
            of(input, Some("/v1/embeddings")).unwrap().path,
            "/v1/embeddings"
        );
    }

    #[test]
    fn a_name_has_an_end() {
        let named = |name: &str| format!(r#"{{"custom_id":"{name}","body":{REQUEST}}}"#);
        let longest = "\u{fc}".repeat(MAX_CUSTOM_ID);
        let line = of(&named(&longest), Some("/v1/chat/completions")).unwrap();
        assert_eq!(line.custom_id.as_deref(), Some(&*longest));
        let (longer, characters) = (format!("{longest}x"), MAX_CUSTOM_ID + 1);
        assert_eq!(
            of(&named(&longer), Some("/v1/chat/completions")),
            Err(Fault::CustomId { characters })
        );
        assert_eq!(custom_id(named(&longer).as_bytes()), Some(longest));
        assert_eq!(custom_id(b"plain"), None);
    }

    #[test]
    fn what_clients_put_around_a_body_is_taken_off() {
        let marked = format!("\u{feff}{REQUEST}");
        assert_eq!(of(&marked, None).unwrap().request, REQUEST);
        let wrapped = serde_json::to_string(REQUEST).unwrap();
        assert_eq!(of(&wrapped, None).unwrap().request, REQUEST);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let line = |what: &str| format!(r#"{{"custom_id":"a","body":{REQUEST},{what}}}"#);
        assert_eq!(
            of(&line(r#""method":"GET""#), None),
            Err(Fault::Method("GET".into()))
        );
        for url in [
            "/v1/files",
            "http://evil/v1/embeddings",
            "/v1/chat/completions/../../x",
            "",
        ] {
            let found = of(&line(&format!(r#""url":"{url}""#)), None);
            assert_eq!(found, Err(Fault::Url(url.into())));
        }
        assert_eq!(of(r#"{"messages":[]}"#, None), Err(Fault::NoModel));
        assert_eq!(
            of(r#"{"model":"m","messages":[],"stream":true}"#, None),
            Err(Fault::Streams)
        );
        assert_eq!(of("{}", None), Err(Fault::Shapeless));
        for body in [
            "",
            "plain",
            "[]",
            "7",
            "{",
            "\"plain\"",
            "\"",
            r#"{"body":7}"#,
            r#"{"body":null,"model":7,"messages":[]}"#,
            "\u{0}\u{1}",
        ] {
            assert!(matches!(of(body, None), Err(Fault::Body(_))), "{body:?}");
        }
        let twice = r#"{"body":{"model":"a"},"body":{"model":"b"}}"#;
        assert!(matches!(of(twice, None), Err(Fault::Body(_))));
    }
}
