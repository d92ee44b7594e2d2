use super::*;
use crate::azure::service_bus::Sent;
use crate::store::blobs::embedded::Embedded as Files;
use crate::store::embedded::Embedded as Tables;

const APP: &str = "nightly";

/// A queue that takes messages, or is full.
#[derive(Debug)]
struct Queue {
    is_full: bool,
}

impl Sends for Queue {
    fn send<'a>(&'a self, _: &'a str, _: &'a Outgoing) -> Sent<'a> {
        let full = || SendError::Unavailable {
            why: "full".into(),
            retry_after_ms: None,
        };
        let sent = if self.is_full { Err(full()) } else { Ok(()) };
        Box::pin(std::future::ready(sent))
    }
}

struct Scene {
    calls: AsyncCalls,
    blobs: Arc<Files>,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn new(is_full: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Arc::new(Files::open(folder.path()).unwrap());
        let batch = Batch::new("http://127.0.0.1:9".parse().unwrap(), "batch", &["results"]);
        let calls = AsyncCalls::new(
            &batch,
            Arc::new(Tables::open(folder.path()).unwrap()),
            Some(Arc::<Files>::clone(&blobs)),
            Arc::new(Queue { is_full }),
        );
        Self {
            calls,
            blobs,
            _folder: folder,
        }
    }

    /// Hands in a call whose request has so many bytes.
    async fn accept(&self, id: &str, bytes: usize) -> Result<(), AsyncError> {
        let call = AsyncCall {
            id,
            app: APP,
            path: "/v1/chat/completions",
            body: "x".repeat(bytes).into(),
            wait_s: None,
        };
        self.calls.accept(&call).await
    }

    /// Whether a call's request lies in a blob.
    async fn has_request(&self, id: &str) -> bool {
        let blob = requests::request_blob(APP, id);
        self.blobs.length(&blob).await.unwrap().is_some()
    }

    async fn put_request(&self, id: &str) {
        let blob = requests::request_blob(APP, id);
        let put = self.blobs.put(&blob, "x".into(), Place::Always);
        put.await.unwrap();
    }
}

#[tokio::test]
async fn a_call_that_is_called_off_leaves_no_request() {
    let scene = Scene::new(false);
    scene.accept("large", 500_000).await.unwrap();
    scene.accept("small", 5).await.unwrap();
    assert!(scene.has_request("large").await);
    assert!(!scene.has_request("small").await);
    for id in ["large", "small"] {
        let cancelled = scene.calls.cancel(APP, id).await.unwrap();
        assert_eq!(cancelled, Cancelling::Done);
        assert!(!scene.has_request(id).await, "{id}");
    }
    // What could not be deleted the first time is the second.
    scene.put_request("large").await;
    let again = scene.calls.cancel(APP, "large").await.unwrap();
    assert_eq!(again, Cancelling::Done);
    assert!(!scene.has_request("large").await);
}

#[tokio::test]
async fn a_call_that_is_not_queued_leaves_no_request() {
    let scene = Scene::new(true);
    let refused = scene.accept("large", 500_000).await;
    assert!(
        matches!(refused, Err(AsyncError::Unavailable(_))),
        "{refused:?}"
    );
    assert!(!scene.has_request("large").await);
    let standing = scene.calls.look(APP, "large").await.unwrap();
    assert_eq!(standing, Some(Standing::Cancelled));
}

#[tokio::test]
async fn a_call_that_has_started_keeps_its_request() {
    let scene = Scene::new(false);
    scene.accept("large", 500_000).await.unwrap();
    let key = requests::key(APP, "large");
    let found = requests::read(&*scene.calls.store, &key).await.unwrap();
    let running = Request {
        state: State::Running {
            holder: "h".into(),
            until: Timestamp::from_unix_ms(u64::MAX / 2),
        },
        ..found.unwrap().request
    };
    requests::write(&*scene.calls.store, &key, &running, When::Mine)
        .await
        .unwrap();
    let cancelled = scene.calls.cancel(APP, "large").await.unwrap();
    assert_eq!(cancelled, Cancelling::TooLate);
    assert!(scene.has_request("large").await);
}
