//! The page: each deployment, and whether it is marked.

use std::fmt::{self, Display, Write};
use std::sync::Arc;

use axum::extract::State;
use axum::response::Html;

use crate::gateway::deployment::Deployment;
use crate::gateway::time::Timestamp;
use crate::relay::Relay;

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8>\
<meta name=viewport content=\"width=device-width\"><meta http-equiv=refresh content=5>\
<title>Spillway</title><style>:root{color-scheme:light dark;font:1rem system-ui}\
body{margin:2rem}table{border-collapse:collapse}th,td{padding:.3rem 1rem .3rem 0;text-align:left}\
td.n{text-align:right}</style><h1>Spillway</h1><table><thead><tr><th>Model<th>Tier<th>Backend\
<th>Deployment<th>Kind<th>In flight<th>First byte<th>State</tr></thead><tbody>";

pub(super) async fn show(State(relay): State<Arc<Relay>>) -> Html<String> {
    let now = relay.clock.now();
    let mut html = HEAD.to_owned();
    let mut models: Vec<_> = relay.settings.pool.models().collect();
    models.sort_by_key(|model| Arc::clone(model.name()));
    for model in models {
        for deployment in model.deployments() {
            // Writing to a String can't fail.
            let _ = row(&mut html, model.name(), deployment, now);
        }
    }
    html.push_str("</tbody></table>");
    Html(html)
}

fn row(html: &mut String, model: &str, deployment: &Deployment, now: Timestamp) -> fmt::Result {
    let spec = &deployment.spec;
    let first_byte = deployment.latency_us();
    let first_byte = first_byte.map_or("-".into(), |us| format!("{} ms", us.div_ceil(1000)));
    let state = deployment.mark(now).map_or("serving".into(), |mark| {
        format!("{} until {}", mark.reason.as_str(), mark.until.rfc3339())
    });
    writeln!(
        html,
        "<tr><td>{}<td class=n>{}<td>{}<td>{}<td>{}<td class=n>{}<td class=n>{first_byte}<td>{}</tr>",
        Text(model),
        spec.tier,
        Text(&spec.backend),
        Text(&spec.name),
        spec.kind.as_str(),
        deployment.in_flight(),
        Text(&state),
    )
}

/// A text that is no markup.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
