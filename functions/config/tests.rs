use proptest::prelude::*;

use super::*;
use crate::gateway::event::Kind;
use crate::gateway::strategy::{HashOn, Strategy};

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
        Some(Tables::Embedded("/data".into()))
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
            "https://x.table.core.windows.net",
            "38:10: storage.tables: must be `embedded:DIR`: this version keeps its tables in a folder only",
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

const WITH_TOKENS: &str = r#"
[auth]
mode = "both"
tenant = "11111111-2222-3333-4444-555555555555"
audience = ["api://spillway", "99999999-2222-3333-4444-555555555555"]
authority = "https://login.microsoftonline.us"
algorithms = ["RS256", "PS256"]
admin_key_hashes = ["sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]

[[backend]]
name = "a"
endpoint = "https://a.openai.azure.com"
scope = "https://ai.azure.us/.default"
client_id = "00000000-0000-0000-0000-000000000001"
[[backend.deployment]]
name = "gpt-4o"
kind = "ptu"
apps = ["portal"]

[[app]]
name = "portal"
entra_app_ids = ["00000000-0000-0000-0000-00000000000A"]
tiers = [1, 2]
priority = "low"
"#;

#[test]
fn identities_are_read() {
    let config = parse(WITH_TOKENS).unwrap_or_else(|e| panic!("{e}"));
    let auth = &config.auth;
    assert_eq!(auth.mode, AuthMode::Both);
    let names = auth.audience.as_ref().unwrap().names();
    assert_eq!(
        names,
        ["api://spillway", "99999999-2222-3333-4444-555555555555"]
    );
    assert_eq!(
        auth.algorithms,
        [TokenAlgorithm::Rs256, TokenAlgorithm::Ps256]
    );
    assert_eq!(
        auth.issuers("T"),
        [
            "https://login.microsoftonline.us/T/v2.0",
            "https://sts.windows.net/T/"
        ]
    );
    assert_eq!(
        (auth.leeway_s, auth.admin_role.as_str()),
        (300, "Spillway.Admin")
    );
    let one = WITH_TOKENS.replace(", \"99999999-2222-3333-4444-555555555555\"]", "");
    let one = one.replace("[\"api://spillway\"", "\"api://spillway\"");
    let config = parse(&one).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.auth.audience.unwrap().names(), ["api://spillway"]);
    let app = &config.apps[0];
    assert_eq!(app.tiers.as_deref(), Some(&[1, 2][..]));
    assert_eq!(app.priority, crate::gateway::priority::Priority::Low);
}

#[test]
fn each_mistake_of_an_identity_has_its_place() {
    let cases = [
        (
            "11111111-2222-3333-4444-555555555555",
            "contoso.com",
            "4:10: auth.tenant: must be an id such as 00000000-0000-0000-0000-000000000000, as the portal shows it: issuers name a tenant by its id, not by its domain",
        ),
        (
            "tenant = \"11111111-2222-3333-4444-555555555555\"\n",
            "\n",
            "5:12: auth.audience: needs `tenant` beside it: both say which tokens are taken",
        ),
        (
            "\"both\"",
            "\"tokens\"",
            "3:8: auth.mode: `tokens` is no value of this key; did you mean `token`?",
        ),
        (
            "login.microsoftonline.us",
            "login.microsoftonline.us/common",
            "6:13: auth.authority: must be a URL such as https://login.microsoftonline.com, without a path",
        ),
        (
            "\"RS256\", ",
            "\"none\", ",
            "7:15: auth.algorithms[0]: `none` is no value of this key; there are: RS256, RS384, RS512, PS256, PS384, PS512",
        ),
        (
            "[\"RS256\", \"PS256\"]",
            "[]",
            "7:14: auth.algorithms: is empty: no token could pass",
        ),
        (
            "sha256:aaaa",
            "sha256:aaa",
            "8:21: auth.admin_key_hashes[0]: must be `sha256:` and 64 hexadecimal digits, has 63 characters after `sha256:`",
        ),
        (
            "https://ai.azure.us/.default",
            "https://ai.azure.us",
            "13:9: backend[0].scope: must be a scope such as https://cognitiveservices.azure.com/.default",
        ),
        (
            "client_id = \"00000000-0000-0000-0000-000000000001\"",
            "client_id = \"mine\"",
            "14:13: backend[0].client_id: must be an id such as 00000000-0000-0000-0000-000000000000, as the portal shows it",
        ),
        (
            "client_id = \"00000000-0000-0000-0000-000000000001\"",
            "key = \"k\"",
            "13:9: backend[0].scope: is for a backend without `key`, which is called with a token instead",
        ),
        (
            "apps = [\"portal\"]",
            "apps = [\"portl\"]",
            "18:9: backend[0].deployment[0].apps[0]: `portl` is no app; did you mean `portal`?",
        ),
        (
            "apps = [\"portal\"]",
            "apps = []",
            "18:8: backend[0].deployment[0].apps: is empty: no app could use it",
        ),
        (
            "00000000-0000-0000-0000-00000000000A",
            "portal",
            "22:18: app[0].entra_app_ids[0]: must be an id such as 00000000-0000-0000-0000-000000000000, as the portal shows it",
        ),
        (
            "[1, 2]",
            "[1, 10]",
            "23:13: app[0].tiers[1]: must be from 1 to 9, is 10",
        ),
        (
            "[1, 2]",
            "[]",
            "23:9: app[0].tiers: is empty: the app could call nothing",
        ),
        (
            "\"low\"",
            "\"lower\"",
            "24:12: app[0].priority: `lower` is no value of this key; did you mean `low`?",
        ),
    ];
    for (from, to, expected) in cases {
        assert!(WITH_TOKENS.contains(from), "{from}");
        let all = mistakes(&WITH_TOKENS.replacen(from, to, 1));
        let expected = format!("spillway.toml:{expected}");
        assert_eq!(all, [expected], "{from} -> {to}");
    }
}

#[test]
fn an_entra_app_is_one_apps_and_needs_a_tenant() {
    let twice = format!(
        "{WITH_TOKENS}[[app]]\nname = \"other\"\nentra_app_ids = [\"00000000-0000-0000-0000-00000000000a\"]\n"
    );
    assert_eq!(
        mistakes(&twice),
        ["spillway.toml:27:18: app[1].entra_app_ids[0]: the same id stands in line 22"]
    );
    let start = WITH_TOKENS.find("[[backend]]").unwrap();
    let all = mistakes(&WITH_TOKENS[start..]);
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(
        all[0].contains("needs auth.tenant and auth.audience"),
        "{all:?}"
    );
}

#[test]
fn a_backend_on_this_machine_is_called_with_a_token_only_where_a_scope_says_so() {
    let local = WITH_TOKENS
        .replace("https://a.openai.azure.com", "http://127.0.0.1:9000")
        .replace("scope = \"https://ai.azure.us/.default\"\n", "");
    let all = mistakes(&local);
    assert!(
        all.len() == 1 && all[0].contains("client_id: needs `scope` beside it"),
        "{all:?}"
    );
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
    for section in ["gateway", "auth", "backend", "model", "app", "storage"] {
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
