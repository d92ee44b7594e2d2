//! `models` and `models/{model}`: answered from the configuration.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};

use super::error::RelayError;
use super::settings::{App, Settings};
use crate::gateway::route::Route;

/// The models that the app may use, or the one that the URL names.
pub(super) fn answer(
    settings: &Settings,
    app: &App,
    route: &Route<'_>,
) -> Result<Response, RelayError> {
    let body = match route.path.strip_prefix("models/") {
        None => list(settings, app),
        Some(name) if settings.pool.model(name).is_some() && app.may_use(name) => model(name),
        Some(name) => return Err(RelayError::NoSuchModel(name.to_owned())),
    };
    let mut response = Response::new(Body::from(body.to_string()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

fn list(settings: &Settings, app: &App) -> Value {
    let mut names: Vec<&str> = settings
        .pool
        .models()
        .map(|model| &**model.name())
        .collect();
    names.retain(|name| app.may_use(name));
    names.sort_unstable();
    let models: Vec<Value> = names.into_iter().map(model).collect();
    json!({"object": "list", "data": models})
}

/// `created` is when the gateway does not know: OpenAI's clients want a number there.
fn model(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": 0, "owned_by": "spillway"})
}
