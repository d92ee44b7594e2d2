//! `POST /v1/files`: a form whose file goes into a blob as it comes.
//!
//! Whose a file is its purpose says, which may stand behind it. A form that the relay would take is
//! looked at whole before anything is done with it; a larger one can only be the batch API's.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use multer::Field;
use tokio::time::timeout;

use super::error::ApiError;
use super::form::{Parts, chunk, fault, text};
use super::{Batches, Desk, blob, json_answer};
use crate::gateway::app::App;
use crate::gateway::batches::file::{FileRecord, INPUT, filename};
use crate::gateway::batches::name;
use crate::host::bodies::{Gathered, Part, Ungathered, discard, gather};
use crate::store::blobs::upload::Upload;
use crate::store::{Table, batches as rows};

/// How long the rest of a form is taken in that nobody wants.
const LET_GO_TIME: Duration = Duration::from_secs(10);

/// Most parts of a form.
const MAX_PARTS: usize = 32;

/// What a form's head says, and what has come of its body.
struct Form {
    boundary: String,
    start: Bytes,
    /// Whether `start` is all of it.
    is_whole: bool,
    rest: BodyDataStream,
}

/// Takes a file, or has the relay take it.
pub(super) async fn upload(desk: &Desk, request: Request) -> Response {
    let Some(app) = desk.app(request.headers()).await else {
        return desk.pass(request).await;
    };
    let kind = request.headers().get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let Ok(boundary) = multer::parse_boundary(kind) else {
        return desk.pass(request).await;
    };
    let (mut parts, mut body) = request.into_parts();
    let room = Arc::clone(&desk.batches.passed.room);
    let mut part = Part::of(&room);
    let passed = &desk.batches.passed;
    // More of a form than the relay takes can only be the batch API's: the rest is read as it is kept.
    let gathering = gather(&mut body, passed.max, &mut part);
    let gathered = match timeout((passed.within)(), gathering).await {
        Ok(Ok(gathered)) => Ok(gathered),
        Ok(Err(Ungathered::NoRoom)) => Err(ApiError::NoRoom),
        Ok(Err(Ungathered::Broken(error))) => Err(fault(&error)),
        Err(_) => Err(ApiError::Late),
    };
    let Gathered { bytes, is_whole } = match gathered {
        Ok(gathered) => gathered,
        Err(error) => {
            tokio::spawn(discard(body, passed.max, LET_GO_TIME));
            return desk.answer(Err(error));
        }
    };
    let form = Form {
        boundary,
        start: bytes,
        is_whole,
        rest: body.into_data_stream(),
    };
    if form.is_whole
        && purpose(form.start.clone(), form.boundary.clone())
            .await
            .as_deref()
            != Some(INPUT)
    {
        parts
            .headers
            .insert(CONTENT_LENGTH, form.start.len().into());
        // The relay takes room for it itself.
        drop(part);
        return desk
            .pass(Request::from_parts(parts, Body::from(form.start)))
            .await;
    }
    desk.answer(keep(&desk.batches, &app, form).await)
}

/// What a whole form says it is for.
async fn purpose(form: Bytes, boundary: String) -> Option<String> {
    let rest = stream::empty::<Result<Bytes, Infallible>>();
    let mut parts = Parts::new(boundary, form, rest);
    for _ in 0..MAX_PARTS {
        let mut part = parts.next().await.ok()??;
        if part.name() == Some("purpose") {
            return text(&mut part).await.ok();
        }
        while chunk(&mut part).await.ok()?.is_some() {}
    }
    None
}

/// Keeps a file of the batch API's, where its app may make another call.
async fn keep(batches: &Batches, app: &App, form: Form) -> Result<Response, ApiError> {
    let _place = match batches.admit(app) {
        Ok(place) => place,
        Err(refused) => {
            tokio::spawn(discard(form.rest, batches.passed.max, LET_GO_TIME));
            return Err(refused);
        }
    };
    let id = batches.new_id(name::FILE);
    let mut upload = Upload::new(batches.blobs.clone(), blob(&app.name, &id));
    let named = read(batches, &mut upload, form).await?;
    let bytes = upload.finish().await?;
    let file = FileRecord {
        bytes,
        created_at: batches.now_s(),
        filename: named,
        purpose: INPUT.to_owned(),
        id,
    };
    if let Some(row) = name::key(name::FILE, &file.id) {
        rows::put(&*batches.store, Table::Files, &app.name, &row, &file, None).await?;
    }
    Ok(json_answer(&file.object()))
}

/// Reads a form into `upload`. The file's name.
async fn read(batches: &Batches, upload: &mut Upload, form: Form) -> Result<String, ApiError> {
    let mut parts = Parts::new(form.boundary, form.start, form.rest);
    let (mut named, mut purpose) = (None, None);
    for _ in 0..MAX_PARTS {
        let Some(mut part) = parts.next().await? else {
            break;
        };
        match part.name() {
            Some("purpose") => purpose = Some(text(&mut part).await?),
            Some("file") if named.is_none() => {
                named = Some(filename(part.file_name().unwrap_or("file")));
                file(batches, upload, &mut part).await?;
            }
            // Others, such as `expires_after`, say nothing that is kept.
            _ => drop(text(&mut part).await?),
        }
    }
    match (named, purpose.as_deref()) {
        (None, _) => Err(ApiError::invalid("file", "The form has no `file`.")),
        (_, None) => Err(ApiError::invalid("purpose", "The form has no `purpose`.")),
        (Some(named), Some(INPUT)) => Ok(named),
        (Some(_), Some(_)) => Err(ApiError::TooLarge {
            max_mb: u32::try_from(batches.passed.max >> 20).unwrap_or(u32::MAX),
        }),
    }
}

async fn file(
    batches: &Batches,
    upload: &mut Upload,
    part: &mut Field<'_>,
) -> Result<(), ApiError> {
    let max_mb = batches.settings.max_file_mb;
    let most = u64::from(max_mb) << 20;
    while let Some(bytes) = chunk(part).await? {
        upload.write(&bytes).await?;
        if upload.length() > most {
            return Err(ApiError::TooLarge { max_mb });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_purpose_is_found_behind_a_long_file_too() {
        let mut form =
            b"--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n"
                .to_vec();
        form.resize(1 << 20, b' ');
        form.extend(b"\r\n--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\n");
        form.extend(b"assistants\r\n--b--\r\n");
        let found = purpose(form.into(), "b".into()).await;
        assert_eq!(found.as_deref(), Some("assistants"));
        let without = purpose(vec![b' '; 1 << 20].into(), "b".into()).await;
        assert_eq!(without, None);
    }
}
