//! The configuration, and who calls.

use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};

use axum::http::{HeaderMap, HeaderValue};
use spillway::config::Config;
use spillway::door::Door;
use spillway::gateway::identity::{Claims, TokenRules};
use spillway::gateway::time::Timestamp;

use crate::CONFIG;

/// Mistakes have places in the text; a text without any is read.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let env = |name: &str| (name != "NONE").then(|| format!("value-of-{name}"));
    if let Err(mistakes) = Config::parse(text, "fuzz", &env) {
        let lines = text.lines().count() + 1;
        assert!(!mistakes.list.is_empty());
        for mistake in &mistakes.list {
            assert!((1..=lines).contains(&mistake.line), "{mistakes}");
        }
    }
}

const TENANT: &str = "aaaaaaaa-0000-0000-0000-000000000001";
const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_000);

/// Whoever is let in is of the tenant, means the gateway, and is in time.
pub(crate) fn claims(data: &[u8]) {
    let Ok(claims) = serde_json::from_slice::<Claims>(data) else {
        return;
    };
    let rules = TokenRules {
        tenant: TENANT.into(),
        issuers: vec![format!("https://login.microsoftonline.com/{TENANT}/v2.0")],
        audiences: vec!["api://spillway".into()],
        leeway_ms: 60_000,
    };
    let issuer = claims.iss.clone();
    let (tenant, expires) = (claims.tid.clone(), claims.exp);
    if let Ok(principal) = rules.judge(claims, NOW) {
        assert!(rules.issuers.contains(&issuer));
        assert!(tenant.is_none_or(|tenant| tenant.eq_ignore_ascii_case(TENANT)));
        assert!(principal.holds(NOW));
        assert!(expires > 1_700_000_000 - 61);
    }
}

static DOOR: LazyLock<Door> =
    LazyLock::new(|| Door::new(&CONFIG).unwrap_or_else(|why| panic!("{why}")));

/// Nobody gets in with a token whose key is not known, or with a key that is nobody's.
pub(crate) fn token(data: &[u8]) {
    let name = if data.first() == Some(&b'k') {
        "api-key"
    } else {
        "authorization"
    };
    let value = [b"Bearer ".as_slice(), data].concat();
    let Ok(value) = HeaderValue::from_bytes(if name == "api-key" { data } else { &value }) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(name, value);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = runtime.expect("a runtime without I/O");
    let _inside = runtime.enter();
    let asked = pin!(DOOR.identify(&headers, NOW));
    // One that is pending waits for the tenant's keys, which nobody fetches here.
    if let Poll::Ready(answer) = asked.poll(&mut Context::from_waker(Waker::noop())) {
        assert!(answer.is_err());
    }
}
