//! Who may call, and as whom the gateway calls.

use super::super::*;
use super::{mistakes, parse};
use crate::gateway::priority::Priority;

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
    assert_eq!(app.priority, Priority::Low);
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
