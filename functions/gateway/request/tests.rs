use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn head(json: &str) -> Head<'_> {
    Head::parse(json.as_bytes()).unwrap_or_else(|e| panic!("{json}: {e}"))
}

fn error(json: &str) -> String {
    Head::parse(json.as_bytes()).unwrap_err().to_string()
}

fn edited(json: &str, edits: &[Option<Edit>]) -> String {
    let edits: Vec<Edit> = edits.iter().flatten().cloned().collect();
    let parts = segments(&Bytes::from(json.to_owned()), &edits);
    String::from_utf8(parts.concat()).unwrap()
}

#[test]
fn what_routing_needs_is_read() {
    let h = head(
        r#" {"messages":[{"role":"user","content":"{\"model\":1}"}],"model":"gpt\u002d4o","stream":true,
            "max_completion_tokens":50,"store":false,"previous_response_id":"resp_1"}"#,
    );
    assert_eq!(h.model().unwrap().as_deref(), Some("gpt-4o"));
    assert!(h.stream());
    assert_eq!(h.max_output_tokens(), Some(50));
    assert_eq!(h.store(), Some(false));
    assert_eq!(h.stored_ids().collect::<Vec<_>>(), ["resp_1"]);
    assert!(h.prompt().unwrap().starts_with(b"[{\"role\""));
}

#[test]
fn ids_of_stored_things_are_found_wherever_a_body_names_them() {
    for body in [
        r#"{"input_file_id":"x"}"#,
        r#"{"assistant_id":"x","thread_id":"y"}"#,
        r#"{"conversation":"x"}"#,
        r#"{"conversation":{"id":"x"}}"#,
        r#"{"previous_response_id":null,"conversation":"x"}"#,
        r#"{"file_id":"x"}"#,
        r#"{"validation_file":"x"}"#,
        r#"{"file_ids":["x"]}"#,
        r#"{"file_ids":"x"}"#,
        r#"{"vector_store_ids":[null,7,["y"],{"id":"y"},"\u0078"]}"#,
        r#"{"input":[{"role":"user","content":[{"type":"input_file","file_id":"x"}]}]}"#,
        r#"{"messages":[{"content":[{"type":"file","file":{"fil\u0065_id":"x"}}]}]}"#,
        r#"{"tools":[{"type":"file_search","vector_store_ids":["x"]}]}"#,
        r#"{"tools":[{"type":"code_interpreter","container":"x"}]}"#,
        r#"{"tools":[{"container":{"type":"auto","file_ids":["x"]}}]}"#,
        r#"{"tools":[{"environment":{"type":"container_reference","container_id":"x"}}]}"#,
        r#"{"conversation":{"id":"x","id":"x"}}"#,
        r#"{"conversation":{"metadata":{"id":"y"},"i\u0064":"x"}}"#,
        r#"{"video":{"id":"x"}}"#,
        r#"{"items":[{"type":"message","content":[{"type":"input_file","file_id":"x"}]}]}"#,
        r#"{"thread":{"tool_resources":{"file_search":{"vector_store_ids":["x"]}}}}"#,
        r#"{"additional_messages":[{"attachments":[{"file_id":"x"}]}]}"#,
        r#"{"images":[{"file_id":"x"}]}"#,
        r#"{"data_source":{"type":"file_id","id":"x"}}"#,
        r#"{"data_source":{"type":"jsonl","source":{"type":"file_id","id":"x"}}}"#,
        r#"{"input":["\ud83d",1e999],"tools":[{"vector_store_ids":["x"]}]}"#,
    ] {
        assert_eq!(head(body).stored_ids().next(), Some("x"), "{body}");
    }
    assert_eq!(
        head(r#"{"conversation":{"no":1}}"#).stored_ids().next(),
        None
    );
    let both = head(r#"{"assistant_id":"x","thread_id":"y"}"#);
    assert_eq!(both.stored_ids().collect::<Vec<_>>(), ["x", "y"]);
    let lists = head(r#"{"file_ids":["x","y"],"name":"n","vector_store_ids":["z"]}"#);
    assert_eq!(lists.stored_ids().collect::<Vec<_>>(), ["x", "y", "z"]);
    for body in [
        r#"{"file_ids":null}"#,
        r#"{"file_ids":{"a":"x"}}"#,
        r#"{"input":"{\"file_id\":\"x\"}"}"#,
        r#"{"input":"\u0066ile_id, or \u00e9"}"#,
        r#"{"metadata":{"file_id":"x"}}"#,
        r#"{"attributes":{"file_id":"x"}}"#,
        r#"{"data_source":{"source":{"content":[{"item":{"id":"x"}}]}}}"#,
        r#"{"tools":[{"parameters":{"properties":{"file_id":{"type":"string"}}}}]}"#,
    ] {
        assert_eq!(head(body).stored_ids().next(), None, "{body}");
    }
}

#[test]
fn a_body_names_so_many_stored_things_at_most() {
    let ids = |of: &str, count: usize| -> Vec<String> {
        (0..count).map(|number| format!("{of}-{number}")).collect()
    };
    let named = |id: String| json!({"file_id": id});
    let deep: Vec<Value> = ids("file", 513).into_iter().map(named).collect();
    let most =
        json!({"file_ids": ids("file", 300), "vector_store_ids": ids("vs", 212)}).to_string();
    assert_eq!(head(&most).stored_ids().count(), MAX_STORED_IDS);
    let often = json!({"input": vec![json!({"file_id": "file-1"}); 5000]}).to_string();
    assert_eq!(head(&often).stored_ids().count(), 1);
    for body in [
        json!({"file_ids": ids("file", 513)}),
        json!({"file_ids": ids("file", 100_000)}),
        json!({"file_ids": ids("file", 512), "file_id": "x"}),
        json!({"file_ids": ids("file", 300), "vector_store_ids": ids("vs", 213)}),
        json!({"input": [{"content": deep}]}),
    ] {
        let error = error(&body.to_string());
        assert!(
            error.contains("the body names more than 512 stored things"),
            "{error}"
        );
    }
}

#[test]
fn a_response_in_the_background_is_asked_for_by_true_alone() {
    assert!(head(r#"{"background": true}"#).background());
    assert!(head(r#"{"b\u0061ckground":true}"#).background());
    for body in [
        "{}",
        r#"{"background":false}"#,
        r#"{"background":null}"#,
        r#"{"x":{"background":true}}"#,
    ] {
        assert!(!head(body).background(), "{body}");
    }
}

#[test]
fn only_the_models_value_changes() {
    let body = "{ \"a\" : 1.50,\n \"model\" :\t\"gpt-4o\" , \"z\":\"\\u00e9\"}";
    assert_eq!(
        edited(body, &[head(body).set_model("ptu \"1\"")]),
        "{ \"a\" : 1.50,\n \"model\" :\t\"ptu \\\"1\\\"\" , \"z\":\"\\u00e9\"}"
    );
    assert_eq!(head(body).set_model("gpt-4o"), None);
    assert_eq!(
        edited("{}", &[head("{}").set_model("m")]),
        r#"{"model":"m"}"#
    );
    let no_model = r#"{"x":1}"#;
    assert_eq!(
        edited(no_model, &[head(no_model).set_model("m")]),
        r#"{"model":"m","x":1}"#
    );
}

#[test]
fn usage_is_asked_for_where_it_is_not() {
    let cases = [
        (
            r#"{"stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"stream":true}"#,
        ),
        (
            r#"{"stream_options":null}"#,
            r#"{"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream_options":{ }}"#,
            r#"{"stream_options":{"include_usage":true }}"#,
        ),
        (
            r#"{"stream_options":{"x":1}}"#,
            r#"{"stream_options":{"include_usage":true,"x":1}}"#,
        ),
        (
            r#"{"stream_options":{"include_usage": false,"x":1}}"#,
            r#"{"stream_options":{"include_usage": true,"x":1}}"#,
        ),
        (
            r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#,
            r#"{"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream_options":{"include_usage":null}}"#,
            r#"{"stream_options":{"include_usage":true}}"#,
        ),
    ];
    for (body, asked) in cases {
        assert_eq!(edited(body, &[head(body).ask_usage()]), asked);
    }
    let already = r#"{"stream_options":{"include_usage":true}}"#;
    assert_eq!(head(already).ask_usage(), None);
    assert_eq!(head(r#"{"stream_options":7}"#).ask_usage(), None);
}

#[test]
fn both_edits_can_be_made_at_once() {
    let body = r#"{"stream":true,"model":"a"}"#;
    let h = head(body);
    assert_eq!(
        edited(body, &[h.set_model("b"), h.ask_usage()]),
        r#"{"stream_options":{"include_usage":true},"stream":true,"model":"b"}"#
    );
}

#[test]
fn mistakes_say_where_they_are() {
    assert_eq!(error(""), "the body is empty; a JSON object is expected");
    assert_eq!(
        error("\n [1]"),
        "line 2, column 2: the body must be a JSON object"
    );
    assert_eq!(
        error("{\"model\":\"a\",\n \"n\":1,}"),
        "line 2, column 8: the body is not valid JSON: trailing comma"
    );
    assert!(error("{\"model\":\"a\"").contains("EOF"));
    assert!(error("{} x").contains("trailing characters"));
    assert!(error(r#"{"model":"a","model":"b"}"#).contains("`model` stands twice"));
    for name in NAMES {
        let escaped = name.replacen('e', "\\u0065", 1);
        for again in [name, &escaped] {
            let body = format!("{{\"{name}\":null,\"x\":1,\"x\":2,\"{again}\":\"a\"}}");
            assert!(
                error(&body).contains(&format!("`{name}` stands twice")),
                "{body}"
            );
        }
    }
    let h = head("{\n\"model\":7}");
    assert_eq!(
        h.model().unwrap_err().to_string(),
        "line 2, column 9: `model` must be a string"
    );
}

#[test]
fn a_body_may_name_no_model() {
    assert_eq!(head("{}").model().unwrap(), None);
    assert_eq!(
        edited("{}", &[head("{}").set_model("m")]),
        r#"{"model":"m"}"#
    );
}

#[test]
fn invalid_utf8_is_an_error() {
    assert!(Head::parse(b"{\"a\":\"\xff\"}").is_err());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(".*", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn an_edited_body_is_the_same_but_for_the_edit(
        fields in prop::collection::hash_map("[a-z_]{1,12}", any_json(), 0..6),
        model in ".*",
        pretty in any::<bool>(),
    ) {
        let mut object: serde_json::Map<String, Value> = fields.into_iter().collect();
        object.remove("stream_options");
        object.insert("stream".into(), true.into());
        let before = Value::Object(object.clone());
        let text = if pretty { serde_json::to_string_pretty(&before) } else { serde_json::to_string(&before) }.unwrap();
        let h = head(&text);
        let after: Value = serde_json::from_str(&edited(&text, &[h.set_model(&model), h.ask_usage()])).unwrap();
        object.insert("model".into(), model.into());
        object.insert("stream_options".into(), json!({"include_usage": true}));
        prop_assert_eq!(after, Value::Object(object));
    }

    #[test]
    fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(h) = Head::parse(&bytes) {
            let _ = (h.model(), h.set_model("m"), h.ask_usage());
        }
    }

    #[test]
    fn any_edits_are_made_without_panic(
        len in 0usize..40,
        spans in prop::collection::vec((0usize..50, 0usize..50), 0..5),
    ) {
        let body = Bytes::from(vec![b'x'; len]);
        let edits: Vec<Edit> = spans
            .into_iter()
            .map(|(a, b)| Edit { range: a..b, text: Bytes::from_static(b"-") })
            .collect();
        let _ = segments(&body, &edits);
    }
}
