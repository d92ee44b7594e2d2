//! `models`: the models that the resource has deployments of.

use axum::response::Response;
use serde_json::{Value, json};

use super::errors::WireError;
use super::json as json_answer;
use super::resource::Resource;

pub(super) fn list(resource: &Resource) -> Response {
    let mut models: Vec<&str> = resource
        .deployments()
        .iter()
        .map(|d| d.model.as_str())
        .collect();
    models.sort_unstable();
    models.dedup();
    let models: Vec<Value> = models.into_iter().map(|id| model(resource, id)).collect();
    json_answer(&json!({ "object": "list", "data": models }))
}

/// A model, by its own name or by a deployment's.
pub(super) fn get(resource: &Resource, id: &str) -> Result<Response, WireError> {
    let known = resource
        .deployments()
        .iter()
        .any(|d| d.model == id || d.name == id);
    if known {
        Ok(json_answer(&model(resource, id)))
    } else {
        Err(WireError::no_such("Model", id))
    }
}

fn model(resource: &Resource, id: &str) -> Value {
    json!({
        "id": id, "object": "model", "created": resource.clock.unix_s(), "owned_by": "simulation",
    })
}
