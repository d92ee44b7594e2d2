use proptest::prelude::*;

use super::*;

fn skim(text: &str, keys: TextKeys) -> Skim {
    let mut skim = Skim::new(keys);
    skim.push(text.as_bytes());
    skim
}

#[test]
fn usage_and_id_are_read_at_the_top_level() {
    let s = skim(
        r#"{"choices":[{"usage":{"no":1},"id":"no"}],"id" : "chatcmpl-1","usage": {"a":{"b":[1,2]}} }"#,
        TextKeys::Chat,
    );
    assert_eq!(s.usage(), Some(br#"{"a":{"b":[1,2]}}"#.as_slice()));
    assert_eq!(s.id(), Some("chatcmpl-1"));
    assert!(s.has_choices() && !s.choices_are_empty());
}

#[test]
fn usage_and_id_are_read_inside_response() {
    let s = skim(
        r#"{"type":"response.completed","response":{"id":"resp_1","output":[{"id":"msg_1"}],"usage":{"input_tokens":1}},"sequence_number":9}"#,
        TextKeys::Deltas,
    );
    assert_eq!(s.id(), Some("resp_1"));
    assert_eq!(s.usage(), Some(br#"{"input_tokens":1}"#.as_slice()));
}

#[test]
fn the_id_of_what_was_made_beside_is_read() {
    for (text, ids) in [
        (
            r#"{"id":"upload_1","file":{"a":{"id":"no"},"object":"file","id":"file-1","x":[{"id":"no"}]},"x":1}"#,
            (Some("upload_1"), Some("file-1")),
        ),
        (
            r#"{"file":{"id" : "file-1"},"id":"upload_1"}"#,
            (Some("upload_1"), Some("file-1")),
        ),
        (
            r#"{"id":"run_1","thread_id":"thread_1","x":{"thread_id":"no"}}"#,
            (Some("run_1"), Some("thread_1")),
        ),
        (r#"{"id":"upload_1","file":null}"#, (Some("upload_1"), None)),
        (r#"{"file":[{"id":"no"}],"id":"a"}"#, (Some("a"), None)),
        (r#"{"file":"no","x":{"id":"no"}}"#, (None, None)),
        (
            r#"{"response":{"id":"resp_1","thread_id":"no","file":{"id":"no"}}}"#,
            (Some("resp_1"), None),
        ),
        (
            r#"{"x":{"file":{"id":"no"},"thread_id":"no"}}"#,
            (None, None),
        ),
    ] {
        for at in 0..text.len() {
            let mut cut = Skim::new(TextKeys::None);
            cut.push(&text.as_bytes()[..at]);
            cut.push(&text.as_bytes()[at..]);
            assert_eq!((cut.id(), cut.id_beside()), ids, "{text} cut at {at}");
            cut.reset();
            assert_eq!((cut.id(), cut.id_beside()), (None, None));
        }
    }
}

#[test]
fn a_file_says_no_usage_and_no_error() {
    let s = skim(
        r#"{"file":{"usage":{"x":1},"error":"no","service_tier":"priority","choices":[]},"x":1}"#,
        TextKeys::None,
    );
    assert_eq!((s.usage(), s.has_error()), (None, false));
    assert_eq!(s.service_tier(), None);
    assert!(!s.choices_are_empty());
}

#[test]
fn the_service_tier_is_read_where_the_usage_is() {
    use ServiceTier::{Priority, Standard};
    for (text, tier) in [
        (r#"{"service_tier":"priority","usage":{}}"#, Some(Priority)),
        (
            r#"{"usage":{}, "service_tier" : "priority" }"#,
            Some(Priority),
        ),
        (
            r#"{"service_tier":"default","x":"priority"}"#,
            Some(Standard),
        ),
        (
            r#"{"type":"response.completed","response":{"usage":{},"service_tier":"priority"},"x":1}"#,
            Some(Priority),
        ),
        (r#"{"x":"priority","service_tier":null}"#, None),
        (r#"{"service_tier":["priority"]}"#, None),
        (
            r#"{"service_tier":{"service_tier":"priority"},"x":1}"#,
            None,
        ),
        (r#"{"choices":[{"service_tier":"priority"}]}"#, None),
        (r#"{"metadata":{"service_tier":"priority"}}"#, None),
    ] {
        assert_eq!(skim(text, TextKeys::Chat).service_tier(), tier, "{text}");
        for at in 0..text.len() {
            let mut cut = Skim::new(TextKeys::Chat);
            cut.push(&text.as_bytes()[..at]);
            cut.push(&text.as_bytes()[at..]);
            assert_eq!(cut.service_tier(), tier, "{text} cut at {at}");
            cut.reset();
            assert_eq!(cut.service_tier(), None);
        }
    }
}

#[test]
fn null_usage_is_none() {
    let s = skim(
        r#"{"usage":null,"id":null,"error":null,"choices":[ ]}"#,
        TextKeys::None,
    );
    assert_eq!((s.usage(), s.id(), s.has_error()), (None, None, false));
    assert!(s.choices_are_empty());
}

#[test]
fn an_error_is_seen() {
    assert!(skim(r#"{"error":{"code":"429"}}"#, TextKeys::None).has_error());
    assert!(!skim(r#"{"choices":[{"error":{}}]}"#, TextKeys::None).has_error());
}

#[test]
fn generated_text_is_measured_and_keys_are_not() {
    let chat = r#"{"choices":[{"delta":{"role":"assistant","content":"Hej \"du\""}}]}"#;
    assert_eq!(skim(chat, TextKeys::Chat).text_bytes(), 8);
    assert_eq!(skim(chat, TextKeys::Deltas).text_bytes(), 0);
    let delta = r#"{"type":"response.output_text.delta","delta":"abc","item_id":"content"}"#;
    assert_eq!(skim(delta, TextKeys::Deltas).text_bytes(), 3);
    let tools = r#"{"a":{"tool_calls":[{"function":{"arguments":"{}"}}],"content":null,"b":"x"}}"#;
    assert_eq!(skim(tools, TextKeys::Chat).text_bytes(), 2);
    assert_eq!(
        skim(r#"{"text":"abcd"}"#, TextKeys::Completions).text_bytes(),
        4
    );
}

#[test]
fn what_is_too_long_is_not_taken_for_something_else() {
    let long = "x".repeat(MAX_ID * 2);
    assert_eq!(
        skim(&format!(r#"{{"id":"{long}"}}"#), TextKeys::None).id(),
        None
    );
    let key = format!("id{}", "x".repeat(MAX_KEY));
    assert_eq!(
        skim(&format!(r#"{{"{key}":"a"}}"#), TextKeys::None).id(),
        None
    );
}

#[test]
fn a_key_with_an_escape_is_none_that_is_looked_for_wherever_it_is_cut() {
    let text = br#"{"i\d":"a","con\tent":"b","id":"c"}"#;
    for at in 0..text.len() {
        let mut cut = Skim::new(TextKeys::Chat);
        cut.push(&text[..at]);
        cut.push(&text[at..]);
        assert_eq!((cut.id(), cut.text_bytes()), (Some("c"), 0), "cut at {at}");
    }
}

#[test]
fn a_reset_forgets_the_document_and_keeps_the_length_of_text() {
    let mut s = skim(
        r#"{"id":"a","content":"four","usage":{"x":1},"#,
        TextKeys::Chat,
    );
    s.reset();
    assert_eq!((s.id(), s.usage(), s.text_bytes()), (None, None, 4));
    s.push(br#"{"id":"b"}"#);
    assert_eq!(s.id(), Some("b"));
}

#[test]
fn a_value_that_no_comma_ends_is_the_same_wherever_it_is_cut() {
    let text = br#"{"usage":{"prompt_tokens":5}2"error":null}"#;
    let mut whole = Skim::new(TextKeys::None);
    whole.push(text);
    for at in 0..text.len() {
        let mut cut = Skim::new(TextKeys::None);
        cut.push(&text[..at]);
        cut.push(&text[at..]);
        assert_eq!(cut.usage(), whole.usage(), "cut at {at}");
    }
}

proptest! {
    #[test]
    fn cuts_change_nothing(cuts in prop::collection::vec(0usize..200, 0..8)) {
        let text = r#"{"id":"resp_\u00e9","choices":[],"x":"\\\"","usage":{"n":[{}],"s":"},"},"content":"ab\nc","#;
        let whole = skim(text, TextKeys::Chat);
        let mut cuts: Vec<_> = cuts.into_iter().map(|c| c.min(text.len())).collect();
        cuts.sort_unstable();
        let mut pieces = Skim::new(TextKeys::Chat);
        let mut from = 0;
        for cut in cuts.into_iter().chain([text.len()]) {
            pieces.push(&text.as_bytes()[from..cut]);
            from = cut;
        }
        prop_assert_eq!(pieces.usage(), whole.usage());
        prop_assert_eq!(pieces.usage(), Some(br#"{"n":[{}],"s":"},"}"#.as_slice()));
        prop_assert_eq!(pieces.text_bytes(), whole.text_bytes());
        prop_assert!(pieces.choices_are_empty());
    }

    #[test]
    fn a_string_ends_at_its_first_quote_or_backslash(text in r#"[ -~]{0,40}["\\\\!#\[\]\x00-\xff]{0,20}"#) {
        let bytes = text.as_bytes();
        let first = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\'));
        prop_assert_eq!(string_end(bytes), first);
    }

    #[test]
    fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut s = Skim::new(TextKeys::Chat);
        s.push(&bytes);
        prop_assert!(s.usage.len() <= MAX_USAGE + 1 && s.id.len() <= MAX_ID + 1);
        prop_assert!(s.id_beside.len() <= MAX_ID + 1);
        prop_assert!(s.last.length <= MAX_KEY + 1);
    }
}
