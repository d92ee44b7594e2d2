//! What apps' requests are changed by.

use super::*;
use crate::gateway::route::Operation;

const OPEN: &str = "[auth]\nmode = \"off\"\n[[backend]]\nname = \"a\"\nendpoint = \"http://127.0.0.1:1\"\n[[backend.deployment]]\nname = \"m\"\nkind = \"payg\"\n[[app]]\nname = \"x\"\n";

fn one(table: &str) -> String {
    format!("{OPEN}[[app.transform]]\n{table}\n")
}

#[test]
fn an_app_is_changed_by_nothing_unless_it_says_so() {
    assert_eq!(parse(OPEN).unwrap().apps[0].transform(), None);
}

#[test]
fn every_sort_of_rule_is_read() {
    let tables = [
        "parameter = \"max_tokens\"\nat_most = 4096",
        "parameter = \"temperature\"\ndefault = 0.2",
        "parameter = \"temperature\"\nat_most = 1.5",
        "parameter = \"store\"\nset = false",
        "parameter = \"n\"\nrefuse = true\nmodels = [\"m\"]",
        "parameter = \"user\"\nremove = true",
        "header = \"X-Team\"\nset = \"portal\"",
        "header = \"x-other\"\nremove = true",
        "system_prompt = \"Be brief.\"",
    ];
    let all: Vec<String> = tables
        .iter()
        .map(|t| format!("[[app.transform]]\n{t}\n"))
        .collect();
    let config = parse(&format!("{OPEN}{}", all.concat())).unwrap_or_else(|e| panic!("{e}"));
    let transform = config.apps[0].transform().unwrap();
    let headers: Vec<_> = transform.headers("m").collect();
    assert_eq!(headers.len(), 2);
    assert_eq!(headers[0].0.as_str(), "x-team");
    let edits = transform
        .edits(br#"{"store":true}"#, "m", Operation::ChatCompletions)
        .unwrap();
    let text: Vec<_> = edits
        .iter()
        .map(|edit| String::from_utf8_lossy(&edit.text))
        .collect();
    assert_eq!(
        text,
        [
            "\"max_completion_tokens\":4096,\"temperature\":0.2,",
            "false"
        ]
    );
}

#[test]
fn a_rule_that_makes_no_sense_is_said_with_its_place() {
    for (table, place, says) in [
        (
            "remove = true",
            "app[0].transform[0]",
            "needs one of parameter",
        ),
        (
            "parameter = \"n\"",
            "app[0].transform[0]",
            "needs one of default",
        ),
        (
            "parameter = \"n\"\nset = 1\nremove = true",
            "transform[0]",
            "both `set` and `remove`",
        ),
        (
            "parameter = \"n\"\nheader = \"x\"",
            "transform[0]",
            "both `parameter` and `header`",
        ),
        (
            "parameter = \"n\"\nat_most = 0",
            "transform[0].at_most",
            "from 1 to 128",
        ),
        (
            "parameter = \"n\"\nat_most = \"1\"",
            "transform[0].at_most",
            "a whole number",
        ),
        (
            "parameter = \"temperature\"\nset = 2.5",
            "transform[0].set",
            "from 0 to 2",
        ),
        (
            "parameter = \"store\"\ndefault = \"yes\"",
            "transform[0].default",
            "true or false",
        ),
        (
            "parameter = \"store\"\nat_most = 1",
            "transform[0].at_most",
            "have a size",
        ),
        (
            "parameter = \"n\"\nrefuse = false",
            "transform[0].refuse",
            "must be true",
        ),
        (
            "parameter = \"max_token\"\nremove = true",
            "transform[0].parameter",
            "did you mean `max_tokens`",
        ),
        (
            "header = \"authorization\"\nset = \"x\"",
            "transform[0].header",
            "the gateway's own",
        ),
        ("header = \"x-a\"\nset = 1", "transform[0].set", "a string"),
        (
            "header = \"x-a\"\ndefault = \"x\"",
            "transform[0].default",
            "`set` or `remove`",
        ),
        (
            "system_prompt = \"x\"\nset = 1",
            "transform[0].set",
            "beside `system_prompt`",
        ),
        (
            "parameter = \"n\"\nset = 1\nmodels = [\"o\"]",
            "transform[0].models[0]",
            "is no model",
        ),
    ] {
        let found = mistakes(&one(table));
        assert!(
            found
                .iter()
                .any(|text| text.contains(place) && text.contains(says)),
            "{table}: {found:?}"
        );
    }
}
