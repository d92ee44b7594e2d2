//! A batch from its row to its end, where something is not as it should be.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::super::{Callers, Kept, Passed};
use super::*;
use crate::config::BatchApi;
use crate::gateway::batch::line::MAX_CUSTOM_ID;
use crate::gateway::batches::record::Times;
use crate::gateway::limit::{Refused, Reservation};
use crate::gateway::room::Room;
use crate::store::Store;
use crate::store::blobs::{self, Blob, BlobError, Blobs, Container, Listing, Seen, When};
use crate::store::embedded::Embedded as Tables;
use crate::way::{Called, Errand, Kinds, Later, NoSlot, Slot, Way};

const NOW: Timestamp = Timestamp::from_unix_ms(1_795_000_000_000);

/// Blobs that nothing can be appended to.
#[derive(Debug)]
struct Refusing(blobs::embedded::Embedded);

impl Blobs for Refusing {
    fn append<'a>(&'a self, _: &'a Blob, _: u64, _: Bytes) -> blobs::Answer<'a, ()> {
        Box::pin(async { Err(BlobError::Refused("too many blocks".into())) })
    }

    fn put<'a>(&'a self, blob: &'a Blob, bytes: Bytes, when: When) -> blobs::Answer<'a, ()> {
        self.0.put(blob, bytes, when)
    }

    fn stage<'a>(&'a self, blob: &'a Blob, number: u32, bytes: Bytes) -> blobs::Answer<'a, ()> {
        self.0.stage(blob, number, bytes)
    }

    fn commit<'a>(&'a self, blob: &'a Blob, blocks: u32) -> blobs::Answer<'a, ()> {
        self.0.commit(blob, blocks)
    }

    fn length<'a>(&'a self, blob: &'a Blob) -> blobs::Answer<'a, Option<u64>> {
        self.0.length(blob)
    }

    fn read<'a>(&'a self, blob: &'a Blob, range: Range<u64>) -> blobs::Answer<'a, Option<Bytes>> {
        self.0.read(blob, range)
    }

    fn look<'a>(&'a self, blob: &'a Blob, known: Option<&'a str>) -> blobs::Answer<'a, Seen> {
        self.0.look(blob, known)
    }

    fn delete<'a>(&'a self, blob: &'a Blob) -> blobs::Answer<'a, bool> {
        self.0.delete(blob)
    }

    fn list<'a>(
        &'a self,
        container: Container,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> blobs::Answer<'a, Listing> {
        self.0.list(container, prefix, after)
    }
}

/// A way on which everything is answered so, and how often it was gone.
#[derive(Debug)]
struct Always {
    called: Called,
    calls: AtomicUsize,
}

impl Way for Always {
    fn app(&self, name: &str) -> Option<Arc<App>> {
        Some(Arc::new(App::unrestricted(name)))
    }

    fn kinds(&self, _: &App, _: &str) -> Kinds {
        Kinds::default()
    }

    fn slot<'a>(&'a self, _: &'a str, _: Timestamp) -> Later<'a, Result<Slot, NoSlot>> {
        Box::pin(async { Err(NoSlot { retry_after_ms: 1 }) })
    }

    fn call(&self, _: Errand, _: Option<Slot>) -> Later<'_, Result<Called, String>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(self.called.clone()) })
    }
}

#[derive(Debug)]
struct Nobody;

impl Callers for Nobody {
    fn identify<'a>(&'a self, _: &'a HeaderMap) -> Later<'a, Option<Arc<App>>> {
        Box::pin(async { None })
    }

    fn admit(&self, _: &App) -> Result<Option<Reservation>, Refused> {
        Ok(None)
    }
}

fn good() -> Called {
    Called {
        status: 200,
        request_id: "01J".into(),
        body: Bytes::from_static(b"{}"),
        ..Called::default()
    }
}

fn input(custom_id: &str) -> String {
    let body = json!({"model": "m", "messages": []});
    json!({"custom_id": custom_id, "url": "/v1/chat/completions", "body": body}).to_string()
}

/// What becomes of a batch in this state and of one line, all of whose calls are answered so: the
/// batch, its errors, and how many calls there were.
async fn ended(
    called: Called,
    refuses: bool,
    status: Status,
    line: &str,
) -> (BatchRecord, Vec<Value>, usize) {
    let folder = tempfile::tempdir().unwrap();
    let inner = blobs::embedded::Embedded::open(folder.path()).unwrap();
    let blobs: Arc<dyn Blobs> = match refuses {
        true => Arc::new(Refusing(inner)),
        false => Arc::new(inner),
    };
    let store: Arc<dyn Store> = Arc::new(Tables::open(folder.path()).unwrap());
    let way = Arc::new(Always {
        called,
        calls: AtomicUsize::new(0),
    });
    let batches = Batches::new(
        BatchApi::default(),
        Passed {
            max: 1 << 20,
            within: Arc::new(|| Duration::from_secs(1)),
            room: Arc::new(Room::new(1 << 20)),
        },
        Kept {
            store: Arc::clone(&store),
            blobs: Arc::clone(&blobs),
        },
        Arc::<Always>::clone(&way),
        Arc::new(Nobody),
        Arc::new(|| NOW),
    );
    let batch = begun(&batches, status);
    let content = Bytes::copy_from_slice(line.as_bytes());
    let place = blob("nightly", &batch.input_file_id);
    blobs.put(&place, content, When::Always).await.unwrap();
    let row = name::key(name::BATCH, &batch.id).unwrap();
    rows::put(&*store, Table::Batches, "nightly", &row, &batch, None)
        .await
        .unwrap();
    let active = Active {
        app: "nightly".into(),
        id: batch.id.clone(),
        since: NOW,
        holder: "h".into(),
        until: NOW,
    };
    let run = tokio::time::timeout(Duration::from_secs(30), batches.run(&active));
    assert!(run.await.expect("it comes to an end").unwrap());
    let read = rows::get(&*store, Table::Batches, "nightly", &row).await;
    let errors = blob("nightly", &batch.error_file_id);
    let errors = blobs.read(&errors, 0..1 << 20).await.unwrap();
    let errors = errors.unwrap_or_default();
    let errors = errors
        .split(|byte| *byte == b'\n')
        .filter(|l| !l.is_empty());
    let errors = errors.map(|line| serde_json::from_slice(line).unwrap());
    let calls = way.calls.load(Ordering::SeqCst);
    (read.unwrap().unwrap().record, errors.collect(), calls)
}

/// A batch of one line.
fn begun(batches: &Batches, status: Status) -> BatchRecord {
    let total = u32::from(status != Status::Validating);
    BatchRecord {
        id: batches.new_id(name::BATCH),
        endpoint: "/v1/chat/completions".into(),
        path: "/v1/chat/completions".into(),
        input_file_id: batches.new_id(name::FILE),
        output_file_id: batches.new_id(name::FILE),
        error_file_id: batches.new_id(name::FILE),
        has_output: false,
        has_errors: false,
        metadata: None,
        status,
        counts: Counts {
            total,
            ..Counts::default()
        },
        mistakes: Vec::new(),
        times: Times {
            created: NOW.unix_ms() / 1000,
            ..Times::default()
        },
    }
}

#[tokio::test]
async fn a_batch_whose_results_are_refused_fails_and_says_so() {
    let (batch, _, calls) = ended(good(), true, Status::Validating, &input("a")).await;
    assert_eq!((batch.status, calls), (Status::Failed, 1));
    assert_eq!(batch.mistakes.len(), 1);
    assert_eq!(batch.mistakes[0].code, "results_refused");
    assert_eq!((batch.counts.total, batch.counts.completed), (1, 0));
    assert!(!batch.has_output && !batch.has_errors);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_an_error_at_once() {
    let large = Called {
        body: Bytes::new(),
        beyond: Some(4 << 20),
        ..good()
    };
    let (batch, errors, calls) = ended(large, false, Status::Validating, &input("a")).await;
    assert_eq!((batch.status, calls), (Status::Completed, 1));
    assert_eq!((batch.counts.completed, batch.counts.failed), (0, 1));
    assert_eq!(errors[0]["custom_id"], "a");
    assert_eq!(errors[0]["error"]["code"], "answer_too_large");
}

#[tokio::test]
async fn a_name_that_is_too_long_fails_a_batch_before_anything_is_called() {
    let line = input(&"a".repeat(MAX_CUSTOM_ID + 1));
    let (batch, _, calls) = ended(good(), false, Status::Validating, &line).await;
    assert_eq!((batch.status, calls), (Status::Failed, 0));
    assert_eq!(batch.mistakes[0].code, "custom_id_too_long");
}

#[tokio::test]
async fn a_file_of_blank_lines_fails_a_batch_where_there_are_more_than_it_may_have() {
    let most = usize::try_from(BatchApi::default().max_lines).unwrap();
    for (lines, code) in [(most, "empty_file"), (most + 1, "too_many_lines")] {
        let file = "\n".repeat(lines);
        let (batch, _, calls) = ended(good(), false, Status::Validating, &file).await;
        assert_eq!((batch.status, calls), (Status::Failed, 0));
        assert_eq!(batch.mistakes.len(), 1);
        assert_eq!(batch.mistakes[0].code, code);
    }
}

#[tokio::test]
async fn a_line_that_was_taken_before_and_is_not_any_more_has_its_result() {
    let longest = "a".repeat(MAX_CUSTOM_ID);
    let line = input(&(longest.clone() + "a"));
    let (batch, errors, calls) = ended(good(), false, Status::InProgress, &line).await;
    assert_eq!((batch.status, calls), (Status::Completed, 0));
    assert_eq!(batch.counts.failed, 1);
    assert_eq!(errors[0]["custom_id"], json!(longest));
    assert_eq!(errors[0]["error"]["code"], "custom_id_too_long");
}
