//! `/v1/files`: the batch API's own files, by their ids, and of the list those that it has.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::Method;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use axum::response::Response;
use serde_json::json;

use super::error::ApiError;
use super::{Batches, Desk, Listed, blob, json_answer, page, upload};
use crate::gateway::batches::file::{FileRecord, INPUT, OUTPUT};
use crate::gateway::batches::name;
use crate::store::blobs::reading::stream;
use crate::store::{Table, batches as rows};

/// Most files of a page.
const MAX_PAGE: usize = 1000;

/// `/v1/files`: uploads, and lists.
pub(super) async fn collection(State(desk): State<Desk>, request: Request) -> Response {
    if request.method() == Method::POST {
        return upload::upload(&desk, request).await;
    }
    let listed = Listed::read(request.uri().query());
    let purpose = listed
        .as_ref()
        .ok()
        .and_then(|listed| listed.purpose.as_deref());
    let is_own = purpose.is_none_or(|purpose| matches!(purpose, INPUT | OUTPUT));
    if request.method() != Method::GET || !is_own {
        return desk.pass(request).await;
    }
    let Some(app) = desk.app(request.headers()).await else {
        return desk.pass(request).await;
    };
    desk.answer(match listed {
        Ok(listed) => list(&desk.batches, &app.name, &listed).await,
        Err(error) => Err(error),
    })
}

/// `/v1/files/{id}`: what is known of one, and deleting it.
pub(super) async fn one(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let (app, request) = match desk.own(name::FILE, &id, request).await {
        Ok(own) => own,
        Err(passed) => return passed,
    };
    desk.answer(match *request.method() {
        Method::GET => found(&desk.batches, &app.name, &id)
            .await
            .map(|file| json_answer(&file.object())),
        Method::DELETE => delete(&desk.batches, &app.name, &id).await,
        _ => Err(ApiError::Method),
    })
}

/// `/v1/files/{id}/content`.
pub(super) async fn content(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let (app, request) = match desk.own(name::FILE, &id, request).await {
        Ok(own) => own,
        Err(passed) => return passed,
    };
    desk.answer(match *request.method() {
        Method::GET => found(&desk.batches, &app.name, &id)
            .await
            .map(|file| bytes(&desk.batches, &app.name, &file)),
        _ => Err(ApiError::Method),
    })
}

/// An app's file.
pub(super) async fn found(batches: &Batches, app: &str, id: &str) -> Result<FileRecord, ApiError> {
    let missing = || ApiError::NotFound(id.to_owned());
    let row = name::key(name::FILE, id).ok_or_else(missing)?;
    let read = rows::get(&*batches.store, Table::Files, app, &row).await?;
    read.map(|read| read.record).ok_or_else(missing)
}

fn bytes(batches: &Batches, app: &str, file: &FileRecord) -> Response {
    let blobs = std::sync::Arc::clone(&batches.blobs);
    let parts = stream(blobs, blob(app, &file.id), 0..file.bytes);
    let mut response = Response::new(Body::from_stream(parts));
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, file.bytes.into());
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, kind);
    response
}

/// The blob goes first: a second attempt would no longer find it without its row. A batch that runs
/// finds its input gone, and ends.
async fn delete(batches: &Batches, app: &str, id: &str) -> Result<Response, ApiError> {
    let file = found(batches, app, id).await?;
    batches.blobs.delete(&blob(app, &file.id)).await?;
    if let Some(row) = name::key(name::FILE, id) {
        rows::delete(&*batches.store, Table::Files, app, &row).await?;
    }
    Ok(json_answer(
        &json!({"id": id, "object": "file", "deleted": true}),
    ))
}

async fn list(batches: &Batches, app: &str, listed: &Listed) -> Result<Response, ApiError> {
    let limit = listed.limit(MAX_PAGE, 10_000)?.min(MAX_PAGE);
    let mut after = listed.after(name::FILE)?;
    let (mut objects, mut has_more) = (Vec::new(), false);
    loop {
        let read = rows::list(
            &*batches.store,
            Table::Files,
            app,
            after.as_deref(),
            MAX_PAGE,
        );
        let (files, next): (Vec<FileRecord>, _) = read.await?;
        let wanted = |file: &FileRecord| {
            let purpose = listed.purpose.as_deref();
            purpose.is_none_or(|purpose| file.purpose == purpose)
        };
        for file in files.iter().filter(|file| wanted(file)) {
            if objects.len() == limit {
                has_more = true;
                break;
            }
            objects.push(file.object());
        }
        after = next;
        if has_more || after.is_none() {
            return Ok(json_answer(&page(&objects, has_more)));
        }
    }
}
