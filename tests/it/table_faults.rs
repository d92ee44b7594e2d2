//! The store when Table Storage fails: behind a proxy that breaks connections off, and in front of
//! answers that the real service was recorded with (Azure's SDKs for JavaScript and .NET keep
//! such recordings), which Azurite does not give.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use spillway::store::azure_tables::AzureTables;
use spillway::store::ledger::Ledger;
use spillway::store::{Change, Etag, Fields, Key, Range, Store, StoreError, Table, Write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::azurite::{Azurite, emulator};
use crate::identity_endpoint::{HEADER, IdentityEndpoint, Reply};
use crate::scripted::{Act, Scripted, answer};
use crate::served::Served;
use crate::store::{calls, event, unpriced};

const T: Table = Table::Affinity;

/// Headers of every answer of the service.
const COMMON: &str = "server: Windows-Azure-Table/1.0 Microsoft-HTTPAPI/2.0\r\n\
    x-ms-request-id: 7b4f5a5c-9002-0060-5ab1-b1d7c5000000\r\nx-ms-version: 2019-02-02\r\n\
    date: Tue, 24 Nov 2026 10:00:00 GMT\r\n";

fn refusal(status: &str, code: &str, message: &str) -> Act {
    let headers = format!("{COMMON}content-type: application/json;odata=minimalmetadata\r\n");
    answer(status, &headers, &error(code, message))
}

/// The body of the service's refusals. None of its headers names the code.
fn error(code: &str, message: &str) -> String {
    format!(
        "{{\"odata.error\":{{\"code\":\"{code}\",\"message\":{{\"lang\":\"en-US\",\"value\":\"{message}\\nRequestId:7b4f5a5c-9002-0060-5ab1-b1d7c5000000\\nTime:2026-11-24T10:00:00.0000000Z\"}}}}}}"
    )
}

fn there() -> Act {
    refusal(
        "409 Conflict",
        "TableAlreadyExists",
        "The table specified already exists.",
    )
}

/// A transaction's answer with these parts.
fn transaction(parts: &[String]) -> Act {
    let mut body =
        "--batchresponse_a\r\nContent-Type: multipart/mixed; boundary=changesetresponse_b\r\n\r\n"
            .to_owned();
    for part in parts {
        body += "--changesetresponse_b\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n";
        body += part;
        body += "\r\n";
    }
    body += "--changesetresponse_b--\r\n--batchresponse_a--\r\n";
    let headers = format!("{COMMON}content-type: multipart/mixed; boundary=batchresponse_a\r\n");
    answer("202 Accepted", &headers, &body)
}

fn made() -> String {
    "HTTP/1.1 204 No Content\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-cache\r\nDataServiceVersion: 1.0;\r\nETag: W/\"datetime'2026-11-24T10%3A00%3A00.0000000Z'\"\r\n\r\n".to_owned()
}

fn failed(status: &str, code: &str, message: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-cache\r\nDataServiceVersion: 3.0;\r\nContent-Type: application/json;odata=minimalmetadata;streaming=true;charset=utf-8\r\n\r\n{}",
        error(code, message)
    )
}

fn entity(n: u64) -> Act {
    let headers = format!("{COMMON}content-type: application/json\r\netag: W/\"e\"\r\n");
    let body = format!(
        "{{\"odata.metadata\":\"m\",\"odata.etag\":\"W/\\\"e\\\"\",\"PartitionKey\":\"p\",\"RowKey\":\"a\",\"n@odata.type\":\"Edm.Int64\",\"n\":\"{n}\"}}"
    );
    answer("200 OK", &headers, &body)
}

fn write(row: &str, change: Change) -> Write {
    let row = row.to_owned();
    Write { row, change }
}

fn insert(row: &str) -> Write {
    write(row, Change::Insert(Fields::new().number("n", 1)))
}

fn key() -> Key {
    Key {
        partition: "p".into(),
        row: "a".into(),
    }
}

async fn play(script: Vec<Act>) -> (Scripted, AzureTables) {
    let service = Scripted::start(script).await;
    let store = emulator(service.address);
    (service, store)
}

fn unavailable<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Unavailable(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn refusals_are_read_in_the_shape_that_the_real_service_gives_them() {
    let exists = failed(
        "409 Conflict",
        "EntityAlreadyExists",
        "1:The specified entity already exists.",
    );
    let changed = failed(
        "412 Precondition Failed",
        "UpdateConditionNotSatisfied",
        "0:The update condition specified in the request was not satisfied.",
    );
    let gone = failed(
        "404 Not Found",
        "ResourceNotFound",
        "1:The specified resource does not exist.",
    );
    let large = failed(
        "400 Bad Request",
        "PropertyValueTooLarge",
        "0:The property value exceeds the maximum allowed size (64KB).",
    );
    let script = [exists, changed, gone, large].map(|part| transaction(&[part]));
    let (_service, store) = play([vec![there()], script.to_vec()].concat()).await;
    let replace = |row| write(row, Change::Replace(Fields::new(), Etag("W/\"e\"".into())));
    let inserts = vec![insert("a"), insert("b")];
    let result = store.write(T, "p", inserts.clone()).await;
    assert_eq!(result, Err(StoreError::Exists { index: 1 }));
    let result = store.write(T, "p", vec![replace("a")]).await;
    assert_eq!(result, Err(StoreError::Changed { index: 0 }));
    let result = store
        .write(T, "p", vec![insert("a"), write("b", Change::Delete(None))])
        .await;
    assert_eq!(result, Err(StoreError::Changed { index: 1 }));
    match store.write(T, "p", inserts).await {
        Err(StoreError::Refused(why)) => assert!(why.contains("64KB"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_asked_has_the_documented_form() {
    let (service, store) = play(vec![there(), transaction(&[made(), made()])]).await;
    let writes = vec![insert("a"), write("o'b", Change::Delete(None))];
    store.write(T, "o'p", writes).await.unwrap();
    let asked = service.last_request();
    let (head, body) = asked.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("POST /devstoreaccount1/$batch HTTP/1.1"),
        "{head}"
    );
    let lower = head.to_ascii_lowercase();
    let signed = "authorization: sharedkey devstoreaccount1:";
    for header in [
        "accept: application/json",
        signed,
        "content-type: multipart/mixed; boundary=batch_",
    ] {
        assert!(lower.contains(header), "{header}: {head}");
    }
    assert_eq!(body.matches('\n').count(), body.matches("\r\n").count());
    assert_eq!(body.matches("Prefer: return-no-content").count(), 1);
    assert!(
        body.contains("affinity(PartitionKey='o''p',RowKey='o''b')"),
        "{body}"
    );
    assert!(body.contains("\"PartitionKey\":\"o'p\""), "{body}");
    assert!(body.trim_end().ends_with("--"), "{body}");
}

#[tokio::test]
async fn an_answer_that_leaves_writes_out_is_none() {
    for parts in [vec![], vec![made()], vec![made(), made(), made()]] {
        let (service, store) = play(vec![there(), transaction(&parts)]).await;
        unavailable(store.write(T, "p", vec![insert("a"), insert("b")]).await);
        assert_eq!(service.calls(), 2);
    }
}

#[tokio::test]
async fn a_read_is_tried_again_and_a_write_is_not() {
    let busy = || {
        refusal(
            "503 Service Unavailable",
            "ServerBusy",
            "The server is busy.",
        )
    };
    let (service, store) = play(vec![there(), busy(), busy(), entity(7)]).await;
    let row = store.get(T, &key()).await.unwrap().unwrap();
    assert_eq!((row.fields.get_number("n"), service.calls()), (7, 4));
    let (service, store) = play(vec![there(), busy()]).await;
    let why = unavailable(store.write(T, "p", vec![insert("a")]).await);
    assert!(why.contains("503 ServerBusy: The server is busy."), "{why}");
    assert_eq!(service.calls(), 2);
    unavailable(store.read(T, &Range::all()).await);
    assert_eq!(service.calls(), 5, "three attempts");
}

#[tokio::test]
async fn a_row_that_is_not_there_is_told_from_a_table_that_is_not() {
    let no_row = refusal(
        "404 Not Found",
        "ResourceNotFound",
        "The specified resource does not exist.",
    );
    let no_table = refusal(
        "404 Not Found",
        "TableNotFound",
        "The table specified does not exist.",
    );
    let (_service, store) = play(vec![there(), no_row, no_table]).await;
    assert_eq!(store.get(T, &key()).await, Ok(None));
    let why = unavailable(store.get(T, &key()).await);
    assert!(why.contains("TableNotFound"), "{why}");
}

#[tokio::test]
async fn a_missing_role_is_said_and_made_good_without_a_restart() {
    let refused = refusal(
        "403 Forbidden",
        "AuthorizationPermissionMismatch",
        "This request is not authorized to perform this operation using this permission.",
    );
    let (_service, store) = play(vec![refused, there(), transaction(&[made()])]).await;
    let why = unavailable(store.write(T, "p", vec![insert("a")]).await);
    assert!(why.contains("Storage Table Data Contributor"), "{why}");
    store.write(T, "p", vec![insert("a")]).await.unwrap();
}

#[tokio::test]
async fn rubbish_and_breaks_are_no_answers() {
    let page = answer(
        "200 OK",
        "content-type: text/html\r\n",
        "<html>captive portal</html>",
    );
    for act in [
        page,
        answer("200 OK", COMMON, "{\"odata.metadata\":\"m\",\"value\":7}"),
        Act::SayAndReset(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec()),
        Act::SayAndReset(Vec::new()),
        Act::Flood(20),
        Act::Say(b"HTTP/1.1 799 Odd\r\ncontent-length: 0\r\n\r\n".to_vec()),
    ] {
        let (_service, store) = play(vec![there(), act.clone()]).await;
        unavailable(store.get(T, &key()).await);
        let (_service, store) = play(vec![there(), act.clone()]).await;
        unavailable(store.read(T, &Range::all()).await);
        let (_service, store) = play(vec![there(), act]).await;
        unavailable(store.write(T, "p", vec![insert("a")]).await);
    }
}

#[tokio::test]
async fn silence_has_an_end() {
    let (_service, store) = play(vec![there(), entity(1), Act::Hang]).await;
    store.get(T, &key()).await.unwrap();
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    unavailable(store.write(T, "p", vec![insert("a")]).await);
    assert!(begun.elapsed() <= Duration::from_secs(15));
}

#[tokio::test]
async fn what_can_not_be_sent_is_refused_before_it_is() {
    let (service, store) = play(vec![there()]).await;
    // Six bytes a character in JSON, where the bounds count two.
    let row = |i: u64| {
        write(
            &i.to_string(),
            Change::Insert(Fields::new().text("t", "\u{1}".repeat(30_000))),
        )
    };
    let refused = store.write(T, "p", (0..30).map(row).collect()).await;
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
    let forged = Change::Delete(Some(Etag("e\nIf-Match: *".into())));
    let refused = store.write(T, "p", vec![write("a", forged)]).await;
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(service.calls(), 1, "only the table was asked for");
}

/// Passes bytes on between `from`, where it listens, and `to`.
pub(crate) async fn relay_to(to: SocketAddr, from: SocketAddr) -> JoinHandle<()> {
    Proxy::between(to, from).await.task
}

/// Passes bytes on; can break off each connection when its answer comes.
struct Proxy {
    address: SocketAddr,
    swallow: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Proxy {
    async fn between(to: SocketAddr, from: SocketAddr) -> Self {
        let listener = TcpListener::bind(from).await.unwrap();
        let address = listener.local_addr().unwrap();
        let swallow = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&swallow);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(to).await.unwrap();
                tokio::spawn(pass_on(client, server, Arc::clone(&flag)));
            }
        });
        Self {
            address,
            swallow,
            task,
        }
    }
}

async fn pass_on(client: TcpStream, server: TcpStream, swallow: Arc<AtomicBool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from_server.read(&mut bytes).await {
        if swallow.load(SeqCst) || to_client.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn an_insert_whose_answer_was_lost_meets_its_own_row_and_counts_once() {
    let azurite = Azurite::start();
    let proxy = Proxy::between(azurite.address, "127.0.0.1:0".parse().unwrap()).await;
    let store = emulator(proxy.address);
    store.make_tables().await.unwrap();
    proxy.swallow.store(true, SeqCst);
    unavailable(store.write(T, "p", vec![insert("a")]).await);
    let all = [
        event("00000000000000000000000001"),
        event("00000000000000000000000002"),
    ];
    let events: Vec<_> = all.iter().collect();
    let store: Arc<dyn Store> = Arc::new(store);
    let ledger = Ledger::new(Arc::clone(&store));
    unavailable(ledger.record(&events, &unpriced).await);
    proxy.swallow.store(false, SeqCst);
    let again = store.write(T, "p", vec![insert("a")]).await;
    assert_eq!(again, Err(StoreError::Exists { index: 0 }));
    ledger.record(&events, &unpriced).await.unwrap();
    assert_eq!(calls(store.as_ref()).await, 2);
    proxy.task.abort();
}

const GATEWAY: &str = "[auth]\nmode = \"off\"\n[[backend]]\nname = \"a\"\nendpoint = \"http://127.0.0.1:9\"\n[[backend.deployment]]\nname = \"gpt-4o\"\nkind = \"ptu\"\n";

#[tokio::test]
async fn the_gateways_own_token_is_sent_and_never_logged() {
    let identity = IdentityEndpoint::start(&[Reply::Token(3600)]).await;
    let service = Scripted::start(vec![there()]).await;
    let config = format!(
        "{GATEWAY}[storage]\ntables = \"http://{}\"\n",
        service.address
    );
    let url = identity.url();
    let env = [
        ("IDENTITY_ENDPOINT", url.as_str()),
        ("IDENTITY_HEADER", HEADER),
        ("RUST_LOG", "trace"),
    ];
    let gateway = Served::serve(&config, &env).await;
    gateway.writes("the tables are there").await;
    let asked = service.last_request();
    assert!(asked.starts_with("POST /Tables HTTP/1.1"), "{asked}");
    assert!(
        asked.contains("authorization: Bearer canary-token-1"),
        "{asked}"
    );
    let written = gateway.written();
    assert!(
        written.contains("\"level\":\"TRACE\""),
        "there was nothing to search"
    );
    let found = written.lines().find(|line| line.contains("canary"));
    assert_eq!(found, None);
}

#[tokio::test]
async fn the_azure_crates_requests_are_not_logged_whatever_is_asked_for() {
    for level in ["trace", "trace,azure_core=trace,azure_core::policies=trace"] {
        let service = Scripted::start(vec![there()]).await;
        let config = format!(
            "{GATEWAY}[storage]\ntables = \"http://{}/devstoreaccount1\"\n",
            service.address
        );
        let gateway = Served::serve(&config, &[("RUST_LOG", level)]).await;
        gateway.writes("the tables are there").await;
        let asked = service.last_request();
        assert!(asked.contains("SharedKey devstoreaccount1:"), "{asked}");
        let written = gateway.written();
        assert!(
            written.contains("\"level\":\"TRACE\""),
            "there was nothing to search"
        );
        let found = written.lines().find(|line| line.contains("SharedKey"));
        assert_eq!(found, None);
    }
}
