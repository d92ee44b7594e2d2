use proptest::prelude::*;

use super::*;
use crate::gateway::event::Kind;
use crate::gateway::strategy::{HashOn, Strategy};

mod batch;
mod cache;
mod fallback;
mod identities;
mod limits;
mod place;
mod prices;
mod prompts;
mod telemetry;
mod transform;

const GOOD: &str = r#"
[gateway]
region = "${REGION}"
max_attempts = 4

[[backend]]
name = "ptu-sweden"
endpoint = "https://contoso-swe.openai.azure.com/openai/v1/"
region = "swedencentral"
key = "${PTU_KEY}"
[[backend.deployment]]
name = "gpt-4o-ptu"
model = "gpt-4o"
kind = "ptu"
ptus = 100

[[backend]]
name = "payg"
endpoint = "http://127.0.0.1:9000"
api = "v1"
[[backend.deployment]]
name = "gpt-4o"
kind = "payg"
weight = 3

[[model]]
name = "gpt-4o"
strategy = "hash"
hash_on = "header:X-Session"

[[app]]
name = "chat-portal"
key_hashes = ["sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]
models = ["gpt-4o"]
backends = ["payg"]

[storage]
tables = "embedded:/data"
"#;

fn env(name: &str) -> Option<String> {
    match name {
        "REGION" => Some("westeurope".into()),
        "PTU_KEY" => Some("top-secret".into()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Config, Mistakes> {
    Config::parse(text, "spillway.toml", &env)
}

fn mistakes(text: &str) -> Vec<String> {
    let mistakes = parse(text).unwrap_err();
    mistakes.to_string().lines().map(str::to_owned).collect()
}

/// The good file with one text replaced; the mistake, without the file's name.
fn changed(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    let all = mistakes(&GOOD.replacen(from, to, 1));
    assert_eq!(all.len(), 1, "{all:#?}");
    all[0].strip_prefix("spillway.toml:").unwrap().to_owned()
}

#[test]
fn a_good_file_is_read() {
    let config = parse(GOOD).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.gateway.region.as_deref(), Some("westeurope"));
    assert_eq!(
        (config.gateway.max_attempts, config.gateway.wait_budget_ms),
        (4, 5000)
    );
    let ptu = &config.backends[0];
    assert_eq!(
        ptu.endpoint.to_string(),
        "https://contoso-swe.openai.azure.com"
    );
    assert_eq!(ptu.key.as_ref().map(Secret::expose), Some("top-secret"));
    let [first, second] = [&ptu.deployments[0], &config.backends[1].deployments[0]];
    assert_eq!(
        (first.model(), first.tier(), first.kind),
        ("gpt-4o", 1, Kind::Ptu)
    );
    assert_eq!(
        (second.model(), second.tier(), second.weight),
        ("gpt-4o", 2, 3)
    );
    assert_eq!(config.backends[1].api, ApiForm::V1);
    let selection = config.models[0].selection();
    assert_eq!(selection.strategy, Strategy::Hash);
    assert_eq!(selection.hash_on, HashOn::Header("x-session".into()));
    assert_eq!(
        config.storage.tables,
        Some(StoragePlace::Embedded("/data".into()))
    );
    assert_eq!(config.auth.mode, AuthMode::Required);
}

#[test]
fn a_secret_is_never_printed() {
    let config = parse(GOOD).unwrap();
    assert!(!format!("{config:?}").contains("top-secret"));
    let broken = GOOD
        .replace("name = \"ptu-sweden\"", "name = 7")
        .replace("[\"payg\"]", "[\"${PTU_KEY}\"]");
    let text = mistakes(&broken).join("\n");
    assert!(
        text.contains("is no backend") && !text.contains("top-secret"),
        "{text}"
    );
}

#[test]
fn each_mistake_has_its_place_and_what_would_be_right() {
    let cases = [
        (
            "max_attempts",
            "max_atempts",
            "4:1: gateway.max_atempts: `max_atempts` is no key here; did you mean `max_attempts`?",
        ),
        (
            "max_attempts = 4",
            "max_attempts = 0",
            "4:16: gateway.max_attempts: must be from 1 to 32, is 0",
        ),
        (
            "max_attempts = 4",
            "max_attempts = \"4\"",
            "4:16: gateway.max_attempts: must be a whole number, is a string",
        ),
        (
            "max_attempts = 4",
            "deadline_ms = 5",
            "4:15: gateway.deadline_ms: must be from 1000 to 230000 ms, is 5",
        ),
        (
            "max_attempts = 4",
            "max_bodies_mb = 31",
            "4:17: gateway.max_bodies_mb: `max_bodies_mb` (256 where it is not named) must be at least `max_body_mb` (32)",
        ),
        (
            "max_attempts = 4",
            "max_bodies_mb = 64\nmax_body_mb = 65",
            "4:17: gateway.max_bodies_mb: `max_bodies_mb` (256 where it is not named) must be at least `max_body_mb` (32)",
        ),
        (
            "${REGION}",
            "${NOWHERE}",
            "3:10: gateway.region: the environment variable NOWHERE is not set (on Azure: the app setting NOWHERE)",
        ),
        (
            "kind = \"ptu\"",
            "kind = \"ptus\"",
            "14:8: backend[0].deployment[0].kind: `ptus` is no value of this key; did you mean `ptu`?",
        ),
        (
            "http://127.0.0.1:9000",
            "http://example.com",
            "19:12: backend[1].endpoint: must start with https://: http:// is only for 127.0.0.1, localhost and [::1]",
        ),
        (
            "name = \"ptu-sweden\"",
            "name = \"payg\"",
            "18:8: backend[1].name: the backend of line 7 has the same name",
        ),
        (
            "weight = 3",
            "ptus = 3",
            "24:8: backend[1].deployment[0].ptus: only a deployment of kind ptu has ptus",
        ),
        (
            "header:X-Session",
            "session",
            "29:11: model[0].hash_on: must be `caller`, `prompt` or `header:NAME`",
        ),
        (
            "models = [\"gpt-4o\"]",
            "models = [\"gpt-4\"]",
            "34:11: app[0].models[0]: `gpt-4` is no model of a deployment; did you mean `gpt-4o`?",
        ),
        (
            "sha256:0123",
            "sha256:012",
            "33:15: app[0].key_hashes[0]: must be `sha256:` and 64 hexadecimal digits, has 63 characters after `sha256:`",
        ),
        (
            "embedded:/data",
            "https://x.blob.core.windows.net",
            "38:10: storage.tables: must be `https://NAME.table.core.windows.net`, `http://127.0.0.1:PORT/devstoreaccount1` (the emulator Azurite) or `embedded:DIR`; this one is an endpoint of `.blob.core.`",
        ),
        (
            "name = \"chat-portal\"",
            "name = \"anonymous\"",
            "32:8: app[0].name: `anonymous` is what callers are named with auth.mode = \"off\"",
        ),
        (
            "name = \"chat-portal\"",
            "name = \"chat portal\"",
            "32:8: app[0].name: may have the letters A to Z, digits, `.`, `_` and `-`",
        ),
    ];
    for (from, to, expected) in cases {
        let found = changed(from, to);
        assert_eq!(found, expected, "{from} -> {to}");
    }
}

#[test]
fn all_mistakes_come_at_once_in_the_files_order() {
    let text = "[gatway]\n[auth]\nmode = \"on\"\n[[backend]]\nname = \"a\"\n[[backend.deployment]]\nkind = 1\ntier = 99\n";
    let lines: Vec<String> = mistakes(text);
    let places: Vec<&str> = lines
        .iter()
        .map(|l| l.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "spillway.toml:1:2",
            "spillway.toml:3:8",
            "spillway.toml:4:1",
            "spillway.toml:6:1",
            "spillway.toml:7:8",
            "spillway.toml:8:8"
        ]
        .to_vec(),
        "{lines:#?}"
    );
}

#[test]
fn broken_toml_says_where() {
    let lines = mistakes("[gateway]\nregion = \n");
    assert!(lines[0].starts_with("spillway.toml:2:"), "{lines:?}");
    assert!(lines[0].contains("not valid TOML"), "{lines:?}");
}

#[test]
fn an_empty_file_says_what_is_needed() {
    let text = mistakes("").join("\n");
    assert!(
        text.contains("there is no deployment") && text.contains("no app may call"),
        "{text}"
    );
}

#[test]
fn the_schema_describes_every_section() {
    let schema = schema();
    assert_eq!(schema["title"], "Spillway");
    for section in [
        "gateway",
        "auth",
        "backend",
        "model",
        "app",
        "storage",
        "chargeback",
    ] {
        assert!(schema["properties"].get(section).is_some(), "{section}");
    }
}

#[test]
fn the_configuration_is_looked_for_in_the_stated_order() {
    let named = std::path::Path::new("x.toml");
    let text = |name: &str| (name == "SPILLWAY_CONFIG_TOML").then(|| "[auth]".to_owned());
    let file = |name: &str| (name == "SPILLWAY_CONFIG").then(|| "y.toml".to_owned());
    assert_eq!(
        Source::find(Some(named), &text),
        Source::File("x.toml".into())
    );
    assert_eq!(Source::find(None, &text), Source::Text("[auth]".into()));
    assert_eq!(Source::find(None, &file), Source::File("y.toml".into()));
    assert_eq!(
        Source::find(None, &|_| None),
        Source::File("spillway.toml".into())
    );
    let missing = Source::File("/nowhere/spillway.toml".into())
        .read()
        .unwrap_err();
    assert!(missing.to_string().contains("/nowhere/spillway.toml"));
}

proptest! {
    #[test]
    fn any_text_is_taken(text in ".{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn a_file_with_a_piece_missing_or_doubled_is_taken(start in 0usize..700, len in 0usize..60, double in any::<bool>()) {
        let text: Vec<char> = GOOD.chars().collect();
        let start = start.min(text.len());
        let end = (start + len).min(text.len());
        let again = if double { start } else { end };
        let broken: String = text[..end].iter().chain(&text[again..]).collect();
        let cut: String = text[..start].iter().chain(&text[end..]).collect();
        let _ = (parse(&broken), parse(&cut));
    }
}
