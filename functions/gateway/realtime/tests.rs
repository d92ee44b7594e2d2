use super::*;

#[test]
fn the_model_and_the_key_are_found_where_clients_put_them() {
    assert_eq!(
        model("api-version=1&deployment=a%2Db").as_deref(),
        Some("a-b")
    );
    assert_eq!(model("deployment=a&model=b").as_deref(), Some("b"));
    assert_eq!(model("model=&x"), None);
    let offered = "realtime, openai-insecure-api-key.spw_1,openai-beta.realtime-v1";
    assert_eq!(key("", offered).as_deref(), Some("spw_1"));
    assert_eq!(key("api-key=k%3D", "realtime").as_deref(), Some("k="));
    assert_eq!(key("model=a", "realtime"), None);
    assert_eq!(without_key(offered), "realtime, openai-beta.realtime-v1");
    assert_eq!(without_key("openai-insecure-api-key.x"), "");
}

#[test]
fn a_backend_of_either_form_is_asked_in_its_own() {
    let query = "api-key=secret&model=voice&code=host&call_id=rtc_1";
    assert_eq!(
        upstream(query, Form::V1, "gpt realtime", "2024-10-21"),
        "/openai/v1/realtime?model=gpt%20realtime&call_id=rtc_1"
    );
    assert_eq!(
        upstream(query, Form::Classic, "d", "2025-04-01-preview"),
        "/openai/realtime?api-version=2025-04-01-preview&deployment=d&call_id=rtc_1"
    );
    let classic = "api-version=2024-12-17&deployment=voice";
    assert_eq!(
        upstream(classic, Form::Classic, "d", "2024-10-21"),
        "/openai/realtime?api-version=2024-12-17&deployment=d"
    );
    assert_eq!(
        upstream(classic, Form::V1, "d", ""),
        "/openai/v1/realtime?model=d"
    );
}

/// A `response.done` in the recorded form of the API reference, shortened.
const DONE: &str = r#"{"event_id":"event_3132","type":"response.done","response":{"id":"resp_001","object":"realtime.response","status":"completed","status_details":null,
"output":[{"id":"msg_006","object":"realtime.item","type":"message","role":"assistant","content":[{"type":"audio","transcript":"Sure, how can I assist you today?"}]}],
"usage":{"total_tokens":275,"input_tokens":127,"output_tokens":148,"input_token_details":{"cached_tokens":64,"text_tokens":119,"audio_tokens":8,"cached_tokens_details":{"text_tokens":64,"audio_tokens":0}},"output_token_details":{"text_tokens":36,"audio_tokens":112}}}}"#;

fn hear(listener: &mut Listener, event: &str, size: usize) -> Option<Said> {
    event
        .as_bytes()
        .chunks(size)
        .for_each(|part| listener.part(part));
    listener.end()
}

#[test]
fn the_end_of_a_response_tells_what_it_used_in_text_and_audio() {
    for size in [1, 7, 4096] {
        let mut listener = Listener::default();
        let begun = r#"{"event_id":"event_1","type":"response.created","response":{"usage":null,"object":"realtime.response","id":"resp_001","output":[{"id":"x"}]}}"#;
        let named = Some("resp_001".into());
        assert_eq!(
            hear(&mut listener, begun, size),
            Some(Said::Begun(named.clone()))
        );
        let Some(Said::Done(id, Some(tokens))) = hear(&mut listener, DONE, size) else {
            panic!("{size}");
        };
        assert_eq!(id, named);
        assert_eq!((tokens.input, tokens.output, tokens.cached), (127, 148, 64));
        assert_eq!((tokens.audio_input, tokens.audio_output), (8, 112));
        assert_eq!(tokens.cached_audio, 0, "what was cached is text");
    }
    let heard = r#""text_tokens":58,"audio_tokens":6"#;
    let done = DONE.replace(r#""text_tokens":64,"audio_tokens":0"#, heard);
    let Some(Said::Done(_, Some(tokens))) = hear(&mut Listener::default(), &done, 100) else {
        panic!("{done}");
    };
    assert_eq!((tokens.cached, tokens.cached_audio), (64, 6));
}

#[test]
fn nothing_else_is_taken_for_an_end() {
    let mut listener = Listener::default();
    for event in [
        r#"{"type":"conversation.item.created","item":{"type":"response.done","content":[{"text":"response.done"}]}}"#,
        r#"{"item":{"type":"response.done"},"type":"x"}"#,
        r#"{"type":"conversation.item.input_audio_transcription.completed","usage":{"total_tokens":9}}"#,
        r#"{"x":"type","y":"response.done"}"#,
        r#"{"x":"\",\"type\":\"response.done\""}"#,
        "",
        "type",
        r#"{"type":"response.do"#,
        r#"{"type""#,
    ] {
        assert_eq!(hear(&mut listener, event, 5), None, "{event}");
    }
    let spaced = r#"{ "type" : "response.done" , "response": {"usage": null} }"#;
    assert_eq!(hear(&mut listener, spaced, 5), Some(Said::Done(None, None)));
}

#[test]
fn text_is_counted_and_audio_is_not() {
    let mut listener = Listener::default();
    for event in [
        r#"{"type":"response.output_audio.delta","delta":"AAAAAAAAAAAA"}"#,
        r#"{"type":"response.output_audio_transcript.delta","delta":"Hello"}"#,
        r#"{"type":"response.output_text.delta","delta":", world"}"#,
    ] {
        hear(&mut listener, event, 9);
    }
    assert_eq!(listener.take_text_bytes(), 12);
    assert_eq!(listener.take_text_bytes(), 0);
}
