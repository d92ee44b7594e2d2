//! `/v1/batches`: making, looking at, listing and calling off batches of the gateway's own.

use std::collections::BTreeMap;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::Method;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::error::ApiError;
use super::{Batches, Desk, Listed, files, json_answer, page};
use crate::gateway::app::App;
use crate::gateway::batch::line::path;
use crate::gateway::batches::file::INPUT;
use crate::gateway::batches::name;
use crate::gateway::batches::record::{BatchRecord, Counts, Status, Times};
use crate::gateway::time::Timestamp;
use crate::store::batches::{self as rows, Active, Read};
use crate::store::{Store, StoreError, Table};

/// Longest body of a call here, bytes: metadata has at most some 10 KB.
const MAX_BODY: usize = 256 * 1024;

/// The bounds of metadata (API reference, "Metadata").
const MAX_PAIRS: usize = 16;
const MAX_KEY: usize = 64;
const MAX_VALUE: usize = 512;

/// Most bytes of metadata as JSON.
const MAX_METADATA: usize = 20_000;

/// How often a change is tried that others change, too.
const ATTEMPTS: usize = 10;

/// Most batches of an app that have not ended: all of them are looked through whenever one is to be taken
/// on.
const MAX_UNFINISHED: usize = 100;

/// What a batch is to be made of.
#[derive(Deserialize)]
struct Wanted {
    input_file_id: Option<String>,
    endpoint: Option<String>,
    completion_window: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
}

/// `/v1/batches`: makes one, and lists them.
pub(super) async fn collection(State(desk): State<Desk>, request: Request) -> Response {
    let Some(app) = desk.app(request.headers()).await else {
        return desk.pass(request).await;
    };
    match *request.method() {
        Method::GET => {
            let listed = Listed::read(request.uri().query());
            desk.answer(match listed {
                Ok(listed) => list(&desk.batches, &app.name, &listed).await,
                Err(error) => Err(error),
            })
        }
        Method::POST => create(&desk, &app, request).await,
        _ => desk.answer(Err(ApiError::Method)),
    }
}

/// Makes a batch, or has the relay make one.
async fn create(desk: &Desk, app: &App, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(bytes) = to_bytes(body, MAX_BODY).await else {
        let message = format!("The body broke off, or has more than {MAX_BODY} bytes.");
        return desk.answer(Err(ApiError::Form(message)));
    };
    let wanted = serde_json::from_slice::<Wanted>(&bytes);
    let file = wanted
        .as_ref()
        .ok()
        .and_then(|w| w.input_file_id.as_deref());
    // A batch of a backend's file is the backend's.
    if file.is_some_and(|id| name::key(name::FILE, id).is_none()) {
        return desk
            .pass(Request::from_parts(parts, Body::from(bytes)))
            .await;
    }
    desk.answer(match wanted {
        Ok(wanted) => make(&desk.batches, app, wanted).await,
        Err(error) => Err(ApiError::Form(format!("The body can't be read: {error}."))),
    })
}

/// `/v1/batches/{id}`.
pub(super) async fn one(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let (app, request) = match desk.own(name::BATCH, &id, request).await {
        Ok(own) => own,
        Err(passed) => return passed,
    };
    desk.answer(match *request.method() {
        Method::GET => found(&desk.batches, &app.name, &id)
            .await
            .map(|read| json_answer(&read.record.object())),
        _ => Err(ApiError::Method),
    })
}

/// `/v1/batches/{id}/cancel`.
pub(super) async fn cancel(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let (app, request) = match desk.own(name::BATCH, &id, request).await {
        Ok(own) => own,
        Err(passed) => return passed,
    };
    desk.answer(match *request.method() {
        Method::POST => call_off(&desk.batches, &app.name, &id).await,
        _ => Err(ApiError::Method),
    })
}

async fn found(batches: &Batches, app: &str, id: &str) -> Result<Read<BatchRecord>, ApiError> {
    let missing = || ApiError::NotFound(id.to_owned());
    let row = name::key(name::BATCH, id).ok_or_else(missing)?;
    let read = rows::get(&*batches.store, Table::Batches, app, &row).await?;
    read.ok_or_else(missing)
}

async fn make(batches: &Batches, app: &App, wanted: Wanted) -> Result<Response, ApiError> {
    let _place = batches.admit(app)?;
    let app = &*app.name;
    let missing = |param| ApiError::invalid(param, format!("`{param}` is missing."));
    let input = wanted
        .input_file_id
        .ok_or_else(|| missing("input_file_id"))?;
    let endpoint = wanted.endpoint.ok_or_else(|| missing("endpoint"))?;
    let Some(path) = path(&endpoint) else {
        let message = format!("`{endpoint}` can't be called in a batch.");
        return Err(ApiError::invalid("endpoint", message));
    };
    if wanted.completion_window.as_deref() != Some("24h") {
        let message = "`completion_window` must be `24h`.";
        return Err(ApiError::invalid("completion_window", message));
    }
    check(wanted.metadata.as_ref())?;
    let file = files::found(batches, app, &input).await?;
    if file.purpose != INPUT {
        let message = format!(
            "`{input}` has the purpose `{}`, not `{INPUT}`.",
            file.purpose
        );
        return Err(ApiError::invalid("input_file_id", message));
    }
    if !may_begin(&*batches.store, app).await? {
        let most = MAX_UNFINISHED;
        return Err(ApiError::TooManyBatches { most });
    }
    let batch = BatchRecord {
        id: batches.new_id(name::BATCH),
        endpoint,
        path,
        input_file_id: input,
        output_file_id: batches.new_id(name::FILE),
        error_file_id: batches.new_id(name::FILE),
        has_output: false,
        has_errors: false,
        metadata: wanted.metadata,
        status: Status::Validating,
        counts: Counts::default(),
        mistakes: Vec::new(),
        times: Times {
            created: batches.now_s(),
            ..Times::default()
        },
    };
    begin(batches, app, &batch).await?;
    Ok(json_answer(&batch.object()))
}

fn check(metadata: Option<&BTreeMap<String, String>>) -> Result<(), ApiError> {
    let Some(metadata) = metadata else {
        return Ok(());
    };
    let fits = |(key, value): (&String, &String)| {
        key.chars().count() <= MAX_KEY && value.chars().count() <= MAX_VALUE
    };
    // Escapes can make much of little; the record has to fit a field of a row.
    let is_short = serde_json::to_string(metadata).is_ok_and(|text| text.len() <= MAX_METADATA);
    if metadata.len() <= MAX_PAIRS && metadata.iter().all(fits) && is_short {
        return Ok(());
    }
    let message = format!(
        "`metadata` has at most {MAX_PAIRS} pairs of keys of at most {MAX_KEY} and values of at most {MAX_VALUE} characters."
    );
    Err(ApiError::invalid("metadata", message))
}

/// Whether an app may have one more batch. Calls at the same moment don't see each other's: a few more
/// do no harm.
async fn may_begin(store: &dyn Store, app: &str) -> Result<bool, StoreError> {
    let (mut unfinished, mut after) = (0, None);
    loop {
        let (found, next) = rows::active(store, after).await?;
        let own = found.iter().filter(|(active, _)| active.app == app);
        unfinished += own.count();
        if unfinished >= MAX_UNFINISHED {
            return Ok(false);
        }
        after = next;
        if after.is_none() {
            return Ok(true);
        }
    }
}

/// The row by which it is found to be worked on comes first: one without a batch is cleared away, a
/// batch without one would wait for ever.
async fn begin(batches: &Batches, app: &str, batch: &BatchRecord) -> Result<(), ApiError> {
    let active = Active {
        app: app.to_owned(),
        id: batch.id.clone(),
        since: batches.now(),
        holder: String::new(),
        until: Timestamp::default(),
    };
    rows::activate(&*batches.store, &active).await?;
    if let Some(row) = name::key(name::BATCH, &batch.id) {
        rows::put(&*batches.store, Table::Batches, app, &row, batch, None).await?;
    }
    batches.wake.notify_one();
    Ok(())
}

async fn list(batches: &Batches, app: &str, listed: &Listed) -> Result<Response, ApiError> {
    let limit = listed.limit(20, 100)?;
    let after = listed.after(name::BATCH)?;
    let read = rows::list(
        &*batches.store,
        Table::Batches,
        app,
        after.as_deref(),
        limit,
    );
    let (found, next): (Vec<BatchRecord>, _) = read.await?;
    let objects: Vec<Value> = found.iter().map(BatchRecord::object).collect();
    Ok(json_answer(&page(&objects, next.is_some())))
}

async fn call_off(batches: &Batches, app: &str, id: &str) -> Result<Response, ApiError> {
    let row = name::key(name::BATCH, id).ok_or_else(|| ApiError::NotFound(id.to_owned()))?;
    for _ in 0..ATTEMPTS {
        let Read { mut record, etag } = found(batches, app, id).await?;
        if !record.cancel(batches.now_s()) {
            return Err(ApiError::Ended(record.status));
        }
        let put = rows::put(
            &*batches.store,
            Table::Batches,
            app,
            &row,
            &record,
            Some(etag),
        );
        match put.await {
            Ok(()) => {
                batches.wake.notify_one();
                return Ok(json_answer(&record.object()));
            }
            Err(StoreError::Changed { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::Unavailable(
        "the batch changes all the time".into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::Embedded;

    #[tokio::test]
    async fn an_app_may_begin_a_batch_while_not_too_many_of_its_own_are_unfinished() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        for number in 0..MAX_UNFINISHED {
            assert_eq!(may_begin(&store, "nightly").await, Ok(true), "{number}");
            let active = Active {
                app: "nightly".into(),
                id: format!("batch_spw{number}"),
                since: Timestamp::default(),
                holder: String::new(),
                until: Timestamp::default(),
            };
            rows::activate(&store, &active).await.unwrap();
        }
        assert_eq!(may_begin(&store, "nightly").await, Ok(false));
        assert_eq!(may_begin(&store, "other").await, Ok(true));
    }
}
