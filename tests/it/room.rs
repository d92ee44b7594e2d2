//! The memory that the bodies of requests may take, all together.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::gateway::{OPEN, Running, app, backend, start};
use crate::process::{Process, free_port, handler, package};
use crate::raw::{Raw, RawAnswer, chunked};
use crate::scripted::{Scripted, good};

const MIB: usize = 1 << 20;

/// A gateway that takes bodies of 1 MiB, all together, and its backend.
async fn narrow(more: &str) -> (Running, Scripted) {
    let a = Scripted::start(vec![good()]).await;
    let config = format!(
        "{OPEN}[gateway]\nmax_body_mb = 1\nmax_bodies_mb = 1\n{more}\n{}",
        backend("a", a.address, "payg", "")
    );
    (start(&config).await, a)
}

fn head(path: &str, more: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{more}\r\n\r\n")
        .into_bytes()
}

/// A call with so many bytes of body.
fn call(bytes: usize) -> Vec<u8> {
    let body = "{\"model\":\"gpt-4o\",\"messages\":[]}";
    let mut call = head("/v1/chat/completions", &format!("content-length: {bytes}"));
    call.extend(body.as_bytes());
    call.resize(call.len() + bytes - body.len(), b' ');
    call
}

async fn answered(gateway: &Running, bytes: usize) -> RawAnswer {
    let mut client = Raw::connect(gateway.address).await;
    client.write(&call(bytes)).await;
    client.answer().await
}

/// A client that sends 700,000 bytes of its body, and then nothing.
async fn stalled(gateway: &Running) -> Raw {
    let mut client = Raw::connect(gateway.address).await;
    client
        .write(&head("/v1/chat/completions", "content-length: 800000"))
        .await;
    client.write(&vec![b' '; 700_000]).await;
    has_come().await;
    client
}

/// Waits until what was sent has been read: of two bodies that come at once either may find no room.
async fn has_come() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

/// Waits until a body of half a MiB finds no room.
async fn refused(gateway: &Running) -> RawAnswer {
    let begun = Instant::now();
    loop {
        let answer = answered(gateway, MIB / 2).await;
        if answer.status != 200 {
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "always room");
    }
}

#[tokio::test]
async fn a_body_that_finds_no_room_is_told_to_come_back_and_is_taken_then() {
    let (gateway, a) = narrow("").await;
    for _ in 0..4 {
        let answer = answered(&gateway, MIB).await;
        assert_eq!(answer.status, 200, "one after the other they have room");
    }
    gateway.events(4).await;
    let stalled = stalled(&gateway).await;
    let answer = refused(&gateway).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["error"]["code"], "bodies_full");
    assert!(answer.head.contains("\r\nretry-after: 1\r\n"), "{answer:?}");
    assert!(answer.head.contains("\r\nretry-after-ms: 1000\r\n"));
    let answer = answered(&gateway, 1000).await;
    assert_eq!(answer.status, 200, "a small one has room");
    drop(stalled);
    let begun = Instant::now();
    while answered(&gateway, MIB).await.status != 200 {
        let within = begun.elapsed() < Duration::from_secs(10);
        assert!(within, "the room is not given back");
    }
    let mut served = 0;
    let refused = loop {
        let event = gateway.event().await;
        if event.status == 503 {
            break event;
        }
        served += 1;
    };
    assert_eq!(refused.attempts.len(), 0, "no backend was asked");
    assert!(a.calls() > served);
}

#[tokio::test]
async fn a_body_without_a_stated_length_finds_no_room_either() {
    let (gateway, _a) = narrow("").await;
    let _stalled = stalled(&gateway).await;
    refused(&gateway).await;
    let mut client = Raw::connect(gateway.address).await;
    let path = "/v1/chat/completions";
    client
        .write(&head(path, "transfer-encoding: chunked"))
        .await;
    client.write(&chunked(&vec![b' '; MIB / 2], 10_000)).await;
    assert_eq!(client.answer().await.status, 503);
    client.write(&call(1000)).await;
    assert_eq!(client.answer().await.status, 200, "the connection is good");
}

/// A form of `/v1/files` with a file of so many bytes, whole, or as far as `sent`.
fn form(bytes: usize, sent: usize) -> Vec<u8> {
    let mut body = b"--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
        --b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n"
        .to_vec();
    body.resize(body.len() + bytes, b' ');
    body.extend(b"\r\n--b--\r\n");
    let length = body.len();
    let mut form = format!(
        "POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=b\r\n\
         api-key: nightly-key\r\ncontent-length: {length}\r\n\r\n"
    )
    .into_bytes();
    form.extend(body.iter().take(sent));
    form
}

#[tokio::test]
async fn forms_of_the_batch_api_take_room_of_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let a = Scripted::start(vec![good()]).await;
    let kept = folder.path().display();
    let config = format!(
        "[gateway]\nmax_body_mb = 1\nmax_bodies_mb = 1\ndeadline_ms = 3000\n[storage]\ntables = \"embedded:{kept}\"\n\
         blobs = \"embedded:{kept}\"\n[batch_api]\n{}{}",
        app("nightly", ""),
        backend("a", a.address, "payg", "")
    );
    let gateway = start(&config).await;
    let upload = async |bytes: usize| {
        let mut client = Raw::connect(gateway.address).await;
        client.write(&form(bytes, usize::MAX)).await;
        client.answer().await
    };
    for _ in 0..3 {
        assert_eq!(upload(700_000).await.status, 200, "one after the other");
    }
    let mut slow = Raw::connect(gateway.address).await;
    slow.write(&form(900_000, 700_000)).await;
    has_come().await;
    let begun = Instant::now();
    let answer = loop {
        let answer = upload(500_000).await;
        if answer.status != 200 {
            break answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(3), "always room");
    };
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["error"]["code"], "bodies_full");
    assert!(answer.head.contains("\r\nretry-after: 1\r\n"));
    let answer = slow.answer().await;
    assert_eq!(answer.status, 408, "it had its time");
    assert_eq!(answer.json()["error"]["code"], "body_late");
    assert_eq!(upload(700_000).await.status, 200, "there is room again");
}

#[tokio::test]
async fn a_form_has_the_time_of_the_configuration_that_it_comes_under() {
    let folder = tempfile::tempdir().unwrap();
    let a = Scripted::start(vec![good()]).await;
    let kept = folder.path().display();
    let config = |deadline_ms: u32| {
        format!(
            "[gateway]\nmax_body_mb = 1\ndeadline_ms = {deadline_ms}\n[storage]\ntables = \"embedded:{kept}\"\n\
             blobs = \"embedded:{kept}\"\n[batch_api]\n{}{}",
            app("nightly", ""),
            backend("a", a.address, "payg", "")
        )
    };
    let gateway = start(&config(200_000)).await;
    gateway.swap(&config(1000));
    let mut slow = Raw::connect(gateway.address).await;
    slow.write(&form(900_000, 700_000)).await;
    let answer = slow.answer().await;
    assert_eq!(answer.status, 408);
    assert_eq!(answer.json()["error"]["code"], "body_late");
}

/// It takes the minute that a client may be silent for.
#[tokio::test]
async fn a_client_that_falls_silent_is_waited_for_for_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().display();
    let a = Scripted::start(vec![good()]).await;
    let config = format!(
        "[storage]\ntables = \"embedded:{kept}\"\nblobs = \"embedded:{kept}\"\n[batch_api]\n{}{}",
        app("nightly", ""),
        backend("a", a.address, "payg", "")
    );
    let gateway = start(&config).await;
    let begun = Instant::now();
    let mut silent = Vec::new();
    let batch = "content-length: 100\r\napi-key: nightly-key";
    let sign_in = b"POST /spillway/sign-in HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\
        content-type: application/x-www-form-urlencoded\r\n\r\n";
    let requests = [
        head("/v1/batches", batch),
        sign_in.to_vec(),
        form(40 * MIB, 200),
    ];
    for request in requests {
        let mut client = Raw::connect(gateway.address).await;
        client.write(&request).await;
        silent.push(client);
    }
    for client in &mut silent {
        client.hears_within(Duration::from_secs(75)).await;
    }
    assert!(begun.elapsed() > Duration::from_secs(55));
}

#[tokio::test]
async fn a_sign_in_form_is_small_and_soon_there() {
    let a = Scripted::start(vec![good()]).await;
    let config = app("portal", "") + &backend("a", a.address, "payg", "");
    let gateway = start(&config).await;
    let form = |length: usize| {
        let kind = "application/x-www-form-urlencoded";
        let head = format!(
            "POST /spillway/sign-in HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
        );
        head.into_bytes()
    };
    let mut large = Raw::connect(gateway.address).await;
    large.write(&form(30_000)).await;
    large.write_what_is_taken(&vec![b'k'; 30_000]).await;
    assert_eq!(large.answer().await.status, 413);
    let mut slow = Raw::connect(gateway.address).await;
    slow.write(&form(1000)).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(15) {
        slow.write(b"k").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(slow.answer().await.status, 408);
}

/// Whoever is turned away sends all the same; nothing of it is kept.
#[tokio::test]
async fn what_callers_send_that_are_turned_away_takes_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("app");
    let a = Scripted::start(vec![good()]).await;
    let config = app("portal", "") + &backend("a", a.address, "payg", "");
    package(&folder, &config);
    let port = free_port();
    let gateway = Process::start(handler(&folder, &port.to_string()), port);
    let before = gateway.peak_mib();
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = Raw::connect(gateway.address).await;
        let length = format!("content-length: {}", 32 * MIB);
        client.write(&head("/v1/chat/completions", &length)).await;
        client.write(&vec![b' '; 30 * MIB]).await;
        clients.push(client);
    }
    for client in &mut clients {
        let answer = client.answer().await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.json()["error"]["code"], json!("key_missing"));
    }
    let grown = gateway.peak_mib() - before;
    eprintln!("{grown} MiB for 240 MiB");
    assert!(grown < 48, "{grown} MiB");
}
