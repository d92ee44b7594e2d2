use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Map, json};

use super::super::request::segments;
use super::*;

fn rule(action: Action) -> Rule {
    Rule {
        models: None,
        action,
    }
}

fn parameter(parameter: Parameter, change: Change) -> Rule {
    rule(Action::Parameter(parameter, change))
}

fn changed(rules: Vec<Rule>, operation: Operation, body: &str) -> Result<String, String> {
    let edits = Transform::new(rules).edits(body.as_bytes(), "m", operation);
    let edits = edits.map_err(|error| error.to_string())?;
    let parts = segments(&Bytes::from(body.to_owned()), &edits);
    Ok(String::from_utf8(parts.concat()).unwrap())
}

fn chat(rules: Vec<Rule>, body: &str) -> String {
    changed(rules, Operation::ChatCompletions, body).unwrap()
}

fn at_most(most: u64) -> Change {
    Change::AtMost(Number::from(most))
}

#[test]
fn a_default_is_put_in_only_where_the_call_has_none() {
    let rules = || {
        vec![parameter(
            Parameter::Temperature,
            Change::Default(json!(0.2)),
        )]
    };
    assert_eq!(
        chat(rules(), r#"{ "a":1 }"#),
        r#"{"temperature":0.2, "a":1 }"#
    );
    assert_eq!(chat(rules(), r#"{}"#), r#"{"temperature":0.2}"#);
    assert_eq!(
        chat(rules(), r#"{"temperature" : null}"#),
        r#"{"temperature" : 0.2}"#
    );
    let own = r#"{"temperature":1.50}"#;
    assert_eq!(chat(rules(), own), own);
}

#[test]
fn a_cap_holds_under_every_name_of_the_answers_length() {
    let rules = || vec![parameter(Parameter::MaxTokens, at_most(100))];
    assert_eq!(
        chat(
            rules(),
            r#"{"max_tokens":500,"max_completion_tokens":  1e3}"#
        ),
        r#"{"max_tokens":100,"max_completion_tokens":  100}"#
    );
    assert_eq!(
        chat(rules(), r#"{"x":1}"#),
        r#"{"max_completion_tokens":100,"x":1}"#
    );
    let small = r#"{"max_tokens":7}"#;
    assert_eq!(chat(rules(), small), small);
    let escaped = "{\"max_t\\u006fkens\":500}";
    assert_eq!(chat(rules(), escaped), "{\"max_t\\u006fkens\":100}");
    let completions = |body| changed(rules(), Operation::Completions, body).unwrap();
    assert_eq!(completions(r#"{"x":1}"#), r#"{"x":1}"#, "its default is 16");
    let responses = changed(rules(), Operation::Responses, "{}").unwrap();
    assert_eq!(responses, r#"{"max_output_tokens":100}"#);
    let embeddings = changed(rules(), Operation::Embeddings, "{}").unwrap();
    assert_eq!(embeddings, "{}");
}

#[test]
fn what_no_cap_can_be_held_against_is_refused() {
    let cap = || vec![parameter(Parameter::MaxTokens, at_most(100))];
    let error = |rules, body| changed(rules, Operation::ChatCompletions, body).unwrap_err();
    let text = error(cap(), r#"{"max_tokens":"500"}"#);
    assert_eq!(text, "`max_tokens` must be a number");
    let twice = error(cap(), r#"{"max_tokens":5,"max_tokens":500}"#);
    assert_eq!(twice, "`max_tokens` stands twice in the body");
    let refuse = vec![parameter(Parameter::N, Change::Refuse)];
    assert!(error(refuse.clone(), r#"{"n":1}"#).contains("may not use `n`"));
    assert_eq!(chat(refuse, r#"{"n":null}"#), r#"{"n":null}"#);
    assert!(error(cap(), "[1]").contains("a JSON object"));
}

#[test]
fn a_body_has_so_many_keys_at_most() {
    let body = |more: usize| format!("{{{}\"max_tokens\":500}}", "\"\":0,".repeat(more));
    let cap = || vec![parameter(Parameter::MaxTokens, at_most(100))];
    assert!(chat(cap(), &body(9_999)).ends_with("\"max_tokens\":100}"));
    let error = changed(cap(), Operation::ChatCompletions, &body(10_000)).unwrap_err();
    assert!(error.contains("more than 10000 keys at its top"), "{error}");
}

#[test]
fn what_is_removed_takes_one_comma_along() {
    let rules = || {
        vec![
            parameter(Parameter::User, Change::Remove),
            parameter(Parameter::Seed, Change::Remove),
        ]
    };
    for (body, left) in [
        (r#"{"user":"a","seed":1}"#, "{}"),
        (r#"{"x":0,"user":"a","seed":1}"#, r#"{"x":0}"#),
        (r#"{"user":"a","x":0,"seed":1}"#, r#"{"x":0}"#),
        (r#"{"user":"a" , "seed":1, "x":0}"#, r#"{"x":0}"#),
        (r#"{"x":0 ,"seed":1,"y":2 }"#, r#"{"x":0,"y":2 }"#),
    ] {
        assert_eq!(chat(rules(), body), left, "{body}");
    }
    let mut rules = rules();
    rules.push(parameter(Parameter::N, Change::Set(json!(1))));
    assert_eq!(chat(rules, r#"{"user":"a","seed":1}"#), r#"{"n":1}"#);
}

#[test]
fn rules_are_kept_in_their_order() {
    let rules = vec![
        parameter(Parameter::N, Change::Default(json!(5))),
        parameter(Parameter::N, at_most(2)),
    ];
    assert_eq!(chat(rules, r#"{"x":1}"#), r#"{"n":2,"x":1}"#);
}

#[test]
fn a_system_prompt_goes_before_all_that_the_app_says() {
    let rules = || {
        vec![
            rule(Action::SystemPrompt("Be \"brief\".".into())),
            rule(Action::SystemPrompt("B".into())),
        ]
    };
    assert_eq!(
        chat(rules(), r#"{"messages": [ {"role":"user"}]}"#),
        r#"{"messages": [{"role":"system","content":"Be \"brief\"."},{"role":"system","content":"B"}, {"role":"user"}]}"#
    );
    assert_eq!(
        chat(
            vec![rule(Action::SystemPrompt("B".into()))],
            r#"{"messages":[ ]}"#
        ),
        r#"{"messages":[{"role":"system","content":"B"} ]}"#
    );
    let responses = |body: &str| {
        let rules = vec![rule(Action::SystemPrompt("Be \"brief\".".into()))];
        changed(rules, Operation::Responses, body)
    };
    assert_eq!(
        responses(r#"{"input":"x","instructions":"caf\u00e9"}"#).unwrap(),
        r#"{"input":"x","instructions":"Be \"brief\".\n\ncaf\u00e9"}"#
    );
    assert_eq!(
        responses(r#"{"input":"x"}"#).unwrap(),
        r#"{"instructions":"Be \"brief\".","input":"x"}"#
    );
    assert!(
        responses(r#"{"instructions":[1]}"#)
            .unwrap_err()
            .contains("must be a string")
    );
    let twice = changed(
        rules(),
        Operation::ChatCompletions,
        r#"{"messages":[],"messages":[1]}"#,
    );
    assert!(twice.unwrap_err().contains("`messages` stands twice"));
}

#[test]
fn a_rule_is_for_its_models_only() {
    let transform = Transform::new(vec![Rule {
        models: Some(vec!["other".into()]),
        action: Action::Parameter(Parameter::N, Change::Refuse),
    }]);
    let chat = Operation::ChatCompletions;
    assert!(!transform.changes_body("m", chat) && transform.changes_body("other", chat));
    assert!(!transform.changes_body("other", Operation::Embeddings));
    assert_eq!(transform.edits(br#"{"n":2}"#, "m", chat), Ok(Vec::new()));
}

#[test]
fn headers_of_the_gateway_and_of_the_connection_can_be_no_rules() {
    for name in ["X-Team", "openai-organization"] {
        assert!(name.parse::<HeaderName>().is_ok(), "{name}");
    }
    for name in [
        "",
        "a b",
        "Authorization",
        "x-spillway-priority",
        "Content-Length",
    ] {
        assert!(name.parse::<HeaderName>().is_err(), "{name}");
    }
    assert!("a b".parse::<HeaderValue>().is_ok());
    for value in ["", " a", "a\r\nx: y", "é"] {
        assert!(value.parse::<HeaderValue>().is_err(), "{value:?}");
    }
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0u32..2000).prop_map(Value::from),
        "[ -~]{0,8}".prop_map(Value::from),
        Just(json!([{"role": "user", "content": "x"}])),
        Just(json!({"a": [1, {}]})),
    ]
}

/// A body: members of any name, and of those that rules are about.
fn body() -> impl Strategy<Value = Map<String, Value>> {
    let names = [
        "max_tokens",
        "max_completion_tokens",
        "n",
        "temperature",
        "user",
        "seed",
        "messages",
    ];
    let name = prop_oneof![
        3 => prop::sample::select(names.to_vec()).prop_map(str::to_owned),
        2 => "[a-z\"\\\\é]{0,5}",
    ];
    prop::collection::btree_map(name, scalar(), 0..8).prop_map(|map| map.into_iter().collect())
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let parameter = prop::sample::select(vec![
        Parameter::MaxTokens,
        Parameter::N,
        Parameter::Temperature,
        Parameter::User,
        Parameter::Seed,
    ]);
    let change = prop_oneof![
        (0u32..100).prop_map(|n| Change::Default(n.into())),
        (0u32..100).prop_map(|n| Change::Set(n.into())),
        (0u64..100).prop_map(at_most),
        Just(Change::Remove),
    ];
    let action = prop_oneof![
        5 => (parameter, change).prop_map(|(parameter, change)| Action::Parameter(parameter, change)),
        1 => Just(Action::SystemPrompt("a \"b\"".into())),
    ];
    prop::collection::vec(action.prop_map(rule), 0..6)
}

fn spaced(body: &Map<String, Value>, pad: &str) -> String {
    let members: Vec<String> = body
        .iter()
        .map(|(key, value)| format!("{pad}{}{pad}:{pad}{value}{pad}", Value::from(key.as_str())))
        .collect();
    format!(
        "{pad}{{{}}}{pad}",
        if members.is_empty() {
            pad.to_owned()
        } else {
            members.join(",")
        }
    )
}

proptest! {
    #[test]
    fn only_what_rules_name_changes(body in body(), rules in rules(), pad in "[ \n\t]{0,2}") {
        let text = spaced(&body, &pad);
        let Ok(after) = changed(rules.clone(), Operation::ChatCompletions, &text) else {
            // A cap over something that is no number.
            prop_assert!(rules.iter().any(|rule| matches!(
                rule.action,
                Action::Parameter(_, Change::AtMost(_))
            )));
            return Ok(());
        };
        let after: Map<String, Value> = serde_json::from_str(&after)
            .map_err(|error| TestCaseError::fail(format!("{after}: {error}")))?;
        let named: Vec<&str> = rules
            .iter()
            .flat_map(|rule| match &rule.action {
                Action::Parameter(parameter, _) => {
                    parameter.names(Operation::ChatCompletions).to_vec()
                }
                _ => vec!["messages"],
            })
            .collect();
        for (key, value) in &body {
            if !named.contains(&key.as_str()) {
                prop_assert_eq!(after.get(key), Some(value), "{}", key);
            }
        }
        for key in after.keys() {
            prop_assert!(body.contains_key(key) || named.contains(&key.as_str()), "{}", key);
        }
    }

    #[test]
    fn a_last_cap_holds_and_changing_again_changes_nothing(
        body in body(),
        rules in rules(),
        most in 1u64..50,
    ) {
        let mut rules = rules;
        rules.retain(|rule| matches!(rule.action, Action::Parameter(..)));
        rules.push(parameter(Parameter::MaxTokens, at_most(most)));
        if let Ok(after) = changed(rules.clone(), Operation::ChatCompletions, &spaced(&body, "")) {
            let read: Map<String, Value> = serde_json::from_str(&after).unwrap();
            let said = ["max_tokens", "max_completion_tokens"].map(|name| read.get(name).and_then(Value::as_u64));
            prop_assert!(said.iter().flatten().count() > 0 && said.iter().flatten().all(|n| *n <= most));
            let twice = changed(vec![parameter(Parameter::MaxTokens, at_most(most))], Operation::ChatCompletions, &after);
            prop_assert_eq!(twice, Ok(after));
        }
    }

    #[test]
    fn without_a_rule_for_it_a_body_is_left_alone(text in "\\PC{0,40}") {
        let transform = Transform::default();
        prop_assert!(!transform.changes_body("m", Operation::ChatCompletions));
        let _ = transform.edits(text.as_bytes(), "m", Operation::ChatCompletions);
    }
}
