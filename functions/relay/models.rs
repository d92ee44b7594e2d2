//! `models` and `models/{model}`: answered from the configuration.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};

use super::error::RelayError;
use super::settings::Settings;
use crate::gateway::app::App;
use crate::gateway::pool::ModelPool;
use crate::gateway::route::Route;

/// The models that the app may use, or the one that the URL names.
pub(super) fn answer(
    settings: &Settings,
    app: &App,
    route: &Route<'_>,
) -> Result<Response, RelayError> {
    let body = match route.path.strip_prefix("models/") {
        None => list(settings, app),
        Some(name) => {
            let there = settings.pool.model(name).filter(|pool| usable(pool, app));
            there.ok_or_else(|| RelayError::NoSuchModel(name.to_owned()))?;
            model(name)
        }
    };
    let mut response = Response::new(Body::from(body.to_string()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

fn list(settings: &Settings, app: &App) -> Value {
    let models = settings.pool.models().filter(|model| usable(model, app));
    let mut names: Vec<&str> = models.map(|model| &**model.name()).collect();
    names.sort_unstable();
    let models: Vec<Value> = names.into_iter().map(model).collect();
    json!({"object": "list", "data": models})
}

/// Whether a call of the app's for the model could be served.
fn usable(model: &ModelPool, app: &App) -> bool {
    let mut deployments = model.deployments();
    app.may_ask_for(model.name()) && deployments.any(|one| app.may_use(&one.spec))
}

/// `created` is when the gateway does not know: OpenAI's clients want a number there.
fn model(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": 0, "owned_by": "spillway"})
}
