//! What belongs to a key, and what has none.

use super::*;
use crate::gateway::app::{App, Tiers};
use crate::gateway::deployment::DeploymentSpec;
use crate::gateway::event::Kind;
use crate::gateway::pool::ModelPool;
use crate::gateway::route::Route;
use crate::gateway::strategy::Selection;

const RULES: Rules = Rules {
    scope: Scope::App,
    generated: Generated::Deterministic,
    embeddings: true,
    ttl_ms: 1000,
};

const CHAT: &str = "/v1/chat/completions";

/// A request that is like any other but for what a test says.
struct Ask<'a> {
    rules: Rules,
    app: App,
    path: &'a str,
    query: &'a str,
    model: &'a str,
    deployments: Vec<DeploymentSpec>,
    is_stream: bool,
    policy: &'a str,
}

impl Default for Ask<'_> {
    fn default() -> Self {
        Self {
            rules: RULES,
            app: App::unrestricted("a"),
            path: CHAT,
            query: "",
            model: "m",
            deployments: Vec::new(),
            is_stream: false,
            policy: "",
        }
    }
}

impl Ask<'_> {
    fn key(&self, body: &str) -> Option<Key> {
        let deployments = self.deployments.clone();
        let asked = Asked {
            app: &self.app,
            route: &Route::parse(self.path, self.query).unwrap(),
            model: &ModelPool::new(self.model.into(), deployments, Selection::default()),
            is_stream: self.is_stream,
            headers: [b"", b"", self.policy.as_bytes()],
            body: body.as_bytes(),
        };
        key(&self.rules, &asked)
    }
}

/// A deployment that is these apps' own, or everybody's.
fn deployment(name: &str, tier: u8, apps: &[&str]) -> DeploymentSpec {
    DeploymentSpec {
        backend: "x".into(),
        name: name.into(),
        kind: Kind::Payg,
        tier,
        weight: 1,
        region: None,
        apps: apps.iter().map(|app| (*app).into()).collect(),
    }
}

fn chat(more: &str) -> Option<Key> {
    let body = format!(r#"{{"messages":[{{"role":"user","content":"hi"}}]{more}}}"#);
    Ask::default().key(&body)
}

fn says(content: &str) -> Option<Key> {
    let body = format!(r#"{{"temperature":0,"messages":[{{"role":"user","content":{content}}}]}}"#);
    Ask::default().key(&body)
}

#[test]
fn only_what_is_meant_to_be_the_same_again_has_a_key() {
    for same in [
        r#","temperature":0"#,
        r#","temperature":0.0"#,
        r#","seed":7"#,
        r#","temperature":1,"seed":7"#,
    ] {
        assert!(chat(same).is_some(), "{same}");
    }
    for other in ["", r#","temperature":0.2"#, r#","seed":null"#] {
        assert!(chat(other).is_none(), "{other}");
    }
    let with = |generated| Ask {
        rules: Rules { generated, ..RULES },
        ..Ask::default()
    };
    let body = r#"{"messages":[]}"#;
    assert!(with(Generated::Any).key(body).is_some());
    let off = with(Generated::Off);
    assert!(off.key(r#"{"messages":[],"temperature":0}"#).is_none());
}

#[test]
fn embeddings_have_a_key_unless_they_are_not_wanted() {
    let mut ask = Ask {
        path: "/v1/embeddings",
        ..Ask::default()
    };
    assert!(ask.key(r#"{"input":["a"]}"#).is_some());
    assert_ne!(
        ask.key(r#"{"input":["a"]}"#),
        ask.key(r#"{"input":["a"],"dimensions":8}"#)
    );
    ask.rules.embeddings = false;
    assert!(ask.key(r#"{"input":["a"]}"#).is_none());
    ask.path = "/v1/images/generations";
    assert!(ask.key(r#"{"prompt":"a","seed":1}"#).is_none());
}

#[test]
fn who_asks_and_how_the_body_is_written_make_no_difference() {
    let plain = chat(r#","temperature":0"#);
    for same in [
        r#", "temperature" : 0"#,
        r#","temperature":0,"user":"u","metadata":{"a":"b"},"model":"x""#,
        r#","temperature":0,"stop":null,"store":false,"prompt_cache_key":"k""#,
        r#","temperature":0,"stream":false,"stream_options":{"include_usage":true}"#,
    ] {
        assert_eq!(chat(same), plain, "{same}");
    }
    for other in [
        r#","temperature":0,"max_tokens":5"#,
        r#","temperature":0,"seed":1"#,
        r#","temperature":0,"stream_options":{"include_obfuscation":false}"#,
    ] {
        assert!(chat(other).is_some() && chat(other) != plain, "{other}");
    }
}

#[test]
fn model_url_headers_and_form_of_the_answer_make_a_difference() {
    let body = r#"{"messages":[],"temperature":0}"#;
    let plain = Ask::default().key(body);
    let others = [
        Ask {
            model: "n",
            ..Ask::default()
        },
        Ask {
            is_stream: true,
            ..Ask::default()
        },
        Ask {
            policy: "strict",
            ..Ask::default()
        },
        Ask {
            query: "api-version=preview",
            ..Ask::default()
        },
        Ask {
            path: "/openai/deployments/m/chat/completions",
            ..Ask::default()
        },
    ];
    for ask in others {
        let key = ask.key(body);
        assert!(key.is_some() && key != plain);
    }
    let host = Ask {
        query: "code=secret",
        ..Ask::default()
    };
    assert_eq!(host.key(body), plain);
}

#[test]
fn apps_share_by_choice_only_and_only_where_they_may_go() {
    let body = r#"{"messages":[],"temperature":0}"#;
    let of = |scope, app| {
        let rules = Rules { scope, ..RULES };
        Ask {
            rules,
            app,
            ..Ask::default()
        }
        .key(body)
    };
    let (a, b) = (App::unrestricted("a"), App::unrestricted("b"));
    assert_ne!(of(Scope::App, a.clone()), of(Scope::App, b.clone()));
    assert_eq!(of(Scope::Shared, a.clone()), of(Scope::Shared, b.clone()));
    assert_ne!(of(Scope::Shared, a.clone()), of(Scope::App, a.clone()));
    let mut bound = b.clone();
    bound.backends = Some(vec!["eu".into()]);
    assert_ne!(of(Scope::Shared, a.clone()), of(Scope::Shared, bound));
    let mut bound = b;
    bound.tiers = Tiers::only(&[2]);
    assert_ne!(of(Scope::Shared, a), of(Scope::Shared, bound));
}

#[test]
fn apps_share_only_with_those_that_may_use_the_same_deployments() {
    let of = |name: &str, tiers: Tiers, deployments: &[DeploymentSpec]| {
        let mut app = App::unrestricted(name);
        app.tiers = tiers;
        let ask = Ask {
            rules: Rules {
                scope: Scope::Shared,
                ..RULES
            },
            app,
            deployments: deployments.to_vec(),
            ..Ask::default()
        };
        ask.key(r#"{"messages":[],"temperature":0}"#)
    };
    let open = deployment("open", 2, &[]);
    let own = [deployment("own", 1, &["a"]), open.clone()];
    assert_ne!(of("a", Tiers::ALL, &own), of("b", Tiers::ALL, &own));
    assert_eq!(of("b", Tiers::ALL, &own), of("c", Tiers::ALL, &own));
    let second = Tiers::only(&[2]);
    assert_eq!(of("a", second, &own), of("b", second, &own), "out of reach");
    let [one, two] = ["1", "2"].map(|name| deployment(name, 1, &["a", "b"]));
    let both = [one.clone(), two.clone(), open.clone()];
    assert_eq!(of("a", Tiers::ALL, &both), of("b", Tiers::ALL, &both));
    assert_ne!(of("a", Tiers::ALL, &both), of("c", Tiers::ALL, &both));
    let turned = [two, open, one];
    assert_eq!(of("a", Tiers::ALL, &both), of("a", Tiers::ALL, &turned));
}

#[test]
fn what_looks_elsewhere_or_does_something_has_no_key() {
    for outside in [
        r#","temperature":0,"tools":[{"type":"function"},{"type":"web_search"}]"#,
        r#","temperature":0,"tools":{}"#,
        r#","temperature":0,"data_sources":[]"#,
        r#","temperature":0,"web_search_options":{}"#,
        r#","temperature":0,"temperature":0"#,
    ] {
        assert!(chat(outside).is_none(), "{outside}");
    }
    assert!(chat(r#","temperature":0,"tools":[{"type":"function","function":{}}]"#).is_some());
    for outside in [
        r#"[{"type":"image_url","image_url":{"url":"https://x/a.png"}}]"#,
        r#"[{"type":"input_image","image_url":"https://x/a.png"}]"#,
        r#"[{"type":"file","file":{"file_id":"f"}}]"#,
        r#"[{"type":"item_reference","id":"i"}]"#,
    ] {
        assert!(says(outside).is_none(), "{outside}");
    }
    let inline = r#"[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}}]"#;
    assert!(says(inline).is_some());
    let responses = Ask {
        path: "/v1/responses",
        ..Ask::default()
    };
    let body = |more: &str| format!(r#"{{"input":"hi","temperature":0,"store":false{more}}}"#);
    assert!(responses.key(&body("")).is_some());
    assert!(responses.key(&body(r#","prompt":{"id":"p"}"#)).is_none());
}

#[test]
fn a_body_beyond_the_bound_has_no_key() {
    let long = "x".repeat(1 << 20);
    assert!(says(&format!("{long:?}")).is_none());
    let bomb = r#"{"":0},"#.repeat(60_000);
    assert!(says(&format!("[{bomb}{{}}]")).is_none());
}
