//! What apps send, and what backends answer.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use serde_json::Value;
use spillway::gateway::classify::StreamEvent;
use spillway::gateway::multipart::Form;
use spillway::gateway::opening::Opening;
use spillway::gateway::request::{Edit, Head, segments};
use spillway::gateway::route::{Form as UrlForm, Operation, Route};
use spillway::gateway::skim::{Skim, TextKeys};
use spillway::gateway::sse::SseScanner;
use spillway::gateway::transform::Transform;

use crate::CONFIG;

const DEPLOYMENT: &str = "dep \"1\"";

fn edited(body: &[u8], edits: &[Edit]) -> Vec<u8> {
    segments(&Bytes::copy_from_slice(body), edits).concat()
}

fn json(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok()
}

/// An edited body is the body but for the model and the wish for usage.
pub(crate) fn request(body: &[u8]) {
    let head = match Head::parse(body) {
        Ok(head) => head,
        Err(error) => {
            let lines = body.iter().filter(|byte| **byte == b'\n').count() + 1;
            assert!(error.line <= lines, "{error}");
            return;
        }
    };
    let usage = if head.stream() {
        head.ask_usage()
    } else {
        None
    };
    let edits: Vec<Edit> = head
        .set_model(DEPLOYMENT)
        .into_iter()
        .chain(usage)
        .collect();
    let after = edited(body, &edits);
    let again = Head::parse(&after).expect("an edited body can be read");
    assert_eq!(again.model().ok().flatten().as_deref(), Some(DEPLOYMENT));
    assert_eq!(again.set_model(DEPLOYMENT), None);
    assert_eq!(again.stream(), head.stream());
    // A model that is an object and names one is replaced with it.
    let mut named = head.stored_ids();
    assert!(
        again
            .stored_ids()
            .all(|id| named.any(|before| before == id))
    );
    // What is nested too deeply for a tree goes no further.
    let (Some(mut before), Some(mut after)) = (json(body), json(&after)) else {
        return;
    };
    let options = &after["stream_options"];
    let is_asked = head.stream() && options.is_object();
    assert!(!is_asked || options["include_usage"] == true, "{options}");
    for body in [&mut before, &mut after] {
        let body = body.as_object_mut().expect("a head is an object's");
        body.remove("model");
        body.remove("stream_options");
    }
    assert_eq!(before, after);
}

/// What a backend is sent is what the gateway has read: the same operation, and the same thing stored.
pub(crate) fn route(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let Some(read) = Route::parse(path, query) else {
        return;
    };
    for form in [UrlForm::Classic, UrlForm::V1] {
        let deployment = read.model.as_deref();
        let url = read.upstream(form, deployment, "2024-10-21");
        let (path, query) = url.split_once('?').unwrap_or((&url, ""));
        assert!(
            !query.split('&').any(|pair| pair.starts_with("code=")),
            "{url}"
        );
        let decoded = decoded(path).to_ascii_lowercase();
        assert!(
            !decoded.contains("/../") && !decoded.ends_with("/.."),
            "{url}"
        );
        let seen = Route::parse(path, query).unwrap_or_else(|| panic!("{url} is read again"));
        assert_eq!(seen.stored_id(), read.stored_id(), "{url}");
        assert!(seen.stored_ids().eq(read.stored_ids()), "{url}");
        let behind = |prefix| decoded.strip_prefix(prefix);
        let operation = behind("/openai/v1/")
            .or_else(|| behind("/openai/"))
            .unwrap_or_default();
        if read.operation == Operation::Other {
            // However a backend takes it, it is no call that is billed.
            let billed = [
                "chat/completions",
                "responses",
                "embeddings",
                "images/generations",
            ];
            assert!(!billed.contains(&operation.trim_end_matches('/')), "{url}");
            assert!(
                !operation.starts_with("deployments/") || deployment.is_some(),
                "{url}"
            );
        }
        assert_eq!(seen.operation, read.operation, "{url}");
    }
}

/// As a server decodes a path, which may be no UTF-8 then.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).replace('\\', "/")
}

/// A stream is read the same wherever it is cut, and goes out as it came but for the usage chunk.
pub(crate) fn sse(data: &[u8]) {
    let Some((cuts, stream)) = data.split_at_checked(4) else {
        return;
    };
    let hides = cuts[0] & 1 == 1;
    let keys = [
        TextKeys::Chat,
        TextKeys::Completions,
        TextKeys::Deltas,
        TextKeys::None,
    ];
    let keys = keys[usize::from(cuts[0] >> 1) % keys.len()];
    let scan = |hides: bool, cuts: &[u8]| {
        let mut scanner = SseScanner::new(keys, hides);
        let mut out = Vec::new();
        for piece in pieces(stream, cuts) {
            scanner.push(&Bytes::copy_from_slice(piece), |part| {
                out.extend_from_slice(&part)
            });
        }
        scanner.finish(|part| out.extend_from_slice(&part));
        (out, scanner.seen().clone(), scanner.text_bytes())
    };
    let whole = scan(hides, &[]);
    assert_eq!(scan(hides, &cuts[1..]), whole);
    assert_eq!(scan(hides, &[1]), whole);
    assert_eq!(scan(false, &cuts[1..]).0, stream);
    assert!(whole.0 == stream || whole.1.usage.is_some());
    let skim = |cuts: &[u8]| {
        let mut skim = Skim::new(keys);
        pieces(stream, cuts).for_each(|piece| skim.push(piece));
        let usage = skim.usage().map(<[u8]>::to_vec);
        (
            usage,
            skim.id().map(str::to_owned),
            skim.has_error(),
            skim.service_tier(),
            skim.text_bytes(),
            skim.choices_are_empty(),
        )
    };
    assert_eq!(skim(&cuts[1..]), skim(&[]));
}

/// `bytes` in pieces whose lengths go round `lengths`; in one where there are none.
fn pieces<'b>(bytes: &'b [u8], lengths: &[u8]) -> impl Iterator<Item = &'b [u8]> {
    let lengths: Vec<usize> = lengths
        .iter()
        .map(|length| usize::from(*length).max(1))
        .collect();
    let mut lengths = lengths.into_iter().cycle();
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = lengths.next().unwrap_or(rest.len()).min(rest.len());
        let (piece, after) = rest.split_at(length);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// What a stream's opening is, is the same wherever it is cut.
pub(crate) fn opening(data: &[u8]) {
    let Some((cuts, stream)) = data.split_at_checked(3) else {
        return;
    };
    let look = |cuts: &[u8]| {
        let mut opening = Opening::default();
        let mut all = pieces(stream, cuts).map(|piece| opening.push(piece));
        all.find(|said| *said != StreamEvent::Opening)
    };
    assert_eq!(look(cuts), look(&[1]));
}

/// A form's model is the one that was put in, and nothing else changes.
pub(crate) fn multipart(body: &[u8]) {
    const KIND: &str = "multipart/form-data; boundary=x";
    let Ok(form) = Form::parse(body, KIND) else {
        return;
    };
    let Ok(model) = form.model() else {
        return;
    };
    let edit = form.set_model("dep");
    let changes = usize::from(edit.is_some());
    let after = edited(body, &Vec::from_iter(edit.clone()));
    let again = Form::parse(&after, KIND).expect("an edited form can be read");
    assert_eq!(
        again.model().ok().flatten(),
        Some("dep"),
        "{model:?}, {changes} changes"
    );
    if let Some(edit) = edit {
        assert_eq!(after.len(), body.len() - edit.range.len() + edit.text.len());
    }
}

static RULES: LazyLock<Arc<Transform>> =
    LazyLock::new(|| CONFIG.apps[0].transform().expect("the app has rules"));

/// A body that is changed by rules is one that keeps to them, and the rules change it no more.
pub(crate) fn transform(body: &[u8]) {
    let limits: [(Operation, &[&str]); 3] = [
        (
            Operation::ChatCompletions,
            &["max_tokens", "max_completion_tokens"],
        ),
        (Operation::Responses, &["max_output_tokens"]),
        (Operation::Completions, &["max_tokens"]),
    ];
    for (operation, limits) in limits {
        let Ok(edits) = RULES.edits(body, "m", operation) else {
            continue;
        };
        let after = edited(body, &edits);
        Head::parse(&after)
            .map_or_else(|error| assert!(Head::parse(body).is_err(), "{error}"), drop);
        let Some(after) = json(&after) else {
            continue;
        };
        assert!(after["user"].is_null(), "it is taken out");
        assert_eq!(after["temperature"], 0.5, "it is set");
        for name in limits {
            let most = after.get(*name).and_then(Value::as_f64);
            assert!(most.is_none_or(|most| most <= 100.0), "{name}: {most:?}");
        }
    }
}
