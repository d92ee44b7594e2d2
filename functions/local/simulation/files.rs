//! `files`: upload, list, get, content, delete. Kept in memory, the newest only.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;
use serde_json::{Value, json};

use super::errors::WireError;
use super::json as json_answer;
use super::multipart::Form;
use super::resource::{Resource, new_id};

/// A file that the resource keeps.
#[derive(Debug)]
pub(super) struct StoredFile {
    object: Value,
    data: Bytes,
}

pub(super) fn upload(
    resource: &Resource,
    content_type: &str,
    body: &Bytes,
) -> Result<Response, WireError> {
    let form = Form::parse(content_type, body)?;
    let missing =
        |name: &str| WireError::invalid(name, &format!("Missing required parameter: '{name}'."));
    let file = form.part("file").ok_or_else(|| missing("file"))?;
    let purpose = form.text("purpose").ok_or_else(|| missing("purpose"))?;
    let id = new_id("file-");
    let object = json!({
        "id": id, "object": "file", "bytes": file.data.len(), "purpose": purpose,
        "created_at": resource.clock.unix_s(), "status": "processed",
        "filename": file.filename.as_deref().unwrap_or("file"),
    });
    // A copy: a slice would keep the whole request's body.
    let data = Bytes::copy_from_slice(&file.data);
    let stored = StoredFile {
        object: object.clone(),
        data,
    };
    resource.files().put(id, file.data.len(), stored);
    Ok(json_answer(&object))
}

pub(super) fn list(resource: &Resource) -> Response {
    let files = resource.files();
    let objects: Vec<&Value> = files.values().map(|file| &file.object).collect();
    json_answer(&json!({ "object": "list", "data": objects, "has_more": false }))
}

pub(super) fn get(resource: &Resource, id: &str) -> Result<Response, WireError> {
    let files = resource.files();
    let file = files
        .get(id)
        .ok_or_else(|| WireError::no_such("File", id))?;
    Ok(json_answer(&file.object))
}

pub(super) fn content(resource: &Resource, id: &str) -> Result<Response, WireError> {
    let files = resource.files();
    let file = files
        .get(id)
        .ok_or_else(|| WireError::no_such("File", id))?;
    let content_type = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((content_type, file.data.clone()).into_response())
}

pub(super) fn delete(resource: &Resource, id: &str) -> Result<Response, WireError> {
    let removed = resource.files().remove(id);
    removed.ok_or_else(|| WireError::no_such("File", id))?;
    Ok(json_answer(
        &json!({ "id": id, "object": "file", "deleted": true }),
    ))
}
