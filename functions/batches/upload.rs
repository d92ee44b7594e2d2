//! `POST /v1/files`: a form whose file goes into a blob as it comes.
//!
//! Whose a file is its purpose says, which may stand behind it. A form that the relay would take is
//! looked at whole before anything is done with it; a larger one can only be the batch API's.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use multer::Multipart;
use tokio::time::timeout;
use tower_http::timeout::TimeoutError;

use super::error::ApiError;
use super::{Batches, Desk, blob, json_answer};
use crate::gateway::app::App;
use crate::gateway::batches::file::{FileRecord, INPUT, filename};
use crate::gateway::batches::name;
use crate::host::bodies::{Gathered, Part, Ungathered, discard, gather};
use crate::store::blobs::upload::Upload;
use crate::store::{Table, batches as rows};

/// Longest value of a field that is none of a file's, bytes.
const MAX_FIELD: usize = 1024;

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

/// Why a body can't be read on.
fn fault(error: &(dyn Error + 'static)) -> ApiError {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<TimeoutError>() {
            return ApiError::Late;
        }
        cause = error.source();
    }
    ApiError::Form("The body broke off.".into())
}

fn odd(error: &multer::Error) -> ApiError {
    match error {
        multer::Error::StreamReadFailed(error) => fault(&**error),
        other => ApiError::Form(format!("The form can't be read: {other}.")),
    }
}

/// What a whole form says it is for.
async fn purpose(form: Bytes, boundary: String) -> Option<String> {
    let whole = stream::iter([Ok::<_, std::convert::Infallible>(form)]);
    let mut form = Multipart::new(whole, boundary);
    for _ in 0..MAX_PARTS {
        let mut field = form.next_field().await.ok()??;
        if field.name() == Some("purpose") {
            return text(&mut field).await.ok();
        }
    }
    None
}

async fn text(field: &mut multer::Field<'_>) -> Result<String, ApiError> {
    let mut text = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|e| odd(&e))? {
        text.extend_from_slice(&chunk);
        if text.len() > MAX_FIELD {
            let message = format!("A field of the form has more than {MAX_FIELD} bytes.");
            return Err(ApiError::Form(message));
        }
    }
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

/// Keeps a file of the batch API's.
async fn keep(batches: &Batches, app: &App, form: Form) -> Result<Response, ApiError> {
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
    let mut form = Multipart::new(chunks(form.start, form.rest), form.boundary);
    let (mut named, mut purpose) = (None, None);
    for _ in 0..MAX_PARTS {
        let Some(mut field) = form.next_field().await.map_err(|e| odd(&e))? else {
            break;
        };
        match field.name() {
            Some("purpose") => purpose = Some(text(&mut field).await?),
            Some("file") if named.is_none() => {
                named = Some(filename(field.file_name().unwrap_or("file")));
                file(batches, upload, &mut field).await?;
            }
            // Others, such as `expires_after`, say nothing that is kept.
            _ => drop(text(&mut field).await?),
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
    field: &mut multer::Field<'_>,
) -> Result<(), ApiError> {
    let max_mb = batches.settings.max_file_mb;
    let most = u64::from(max_mb) << 20;
    while let Some(chunk) = field.chunk().await.map_err(|e| odd(&e))? {
        upload.write(&chunk).await?;
        if upload.length() > most {
            return Err(ApiError::TooLarge { max_mb });
        }
    }
    Ok(())
}

/// A body again, of its start and its rest.
fn chunks(
    start: Bytes,
    rest: BodyDataStream,
) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send {
    stream::iter([Ok(start)]).chain(rest)
}
