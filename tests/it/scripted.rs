//! Backends that answer as a test's script says, byte by byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::gateway::{OPEN, Running, backend, start};

/// What the backend does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Writes these bytes and leaves the connection open for the next request.
    Say(Vec<u8>),
    /// Writes these bytes and breaks the connection off.
    SayAndReset(Vec<u8>),
    /// Writes each part after a pause, then leaves the connection open.
    Drip(Vec<Vec<u8>>, Duration),
    /// Writes each part when the test allows it one more.
    Gated(Vec<Vec<u8>>, Arc<Semaphore>),
    /// Answers nothing.
    Hang,
    /// Writes a head and then so many MiB of a document.
    Flood(usize),
    /// The same of events, of 1 KiB each.
    FloodEvents(usize),
    /// The same of one event that never ends.
    FloodOneEvent(usize),
}

/// A backend that plays its script.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    calls: Arc<AtomicUsize>,
    bodies: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Scripted {
    /// Plays `script` by the number of the call; the last act goes on for ever.
    pub(crate) async fn start(script: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let bodies = Arc::new(std::sync::Mutex::new(Vec::new()));
        let this = Self {
            address,
            calls: Arc::clone(&calls),
            bodies: Arc::clone(&bodies),
        };
        let script = Arc::new(script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let parts = (Arc::clone(&script), Arc::clone(&calls), Arc::clone(&bodies));
                tokio::spawn(play(stream, parts));
            }
        });
        this
    }

    /// Requests so far.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }

    /// The last request, head and body.
    pub(crate) fn last_request(&self) -> String {
        self.bodies
            .lock()
            .unwrap()
            .last()
            .cloned()
            .unwrap_or_default()
    }
}

type Shared = (
    Arc<Vec<Act>>,
    Arc<AtomicUsize>,
    Arc<std::sync::Mutex<Vec<String>>>,
);

async fn play(mut stream: TcpStream, (script, calls, bodies): Shared) {
    stream.set_nodelay(true).unwrap();
    while let Some(request) = read_request(&mut stream).await {
        bodies.lock().unwrap().push(request);
        let call = calls.fetch_add(1, SeqCst);
        let act = script
            .get(call)
            .or(script.last())
            .cloned()
            .unwrap_or(Act::Hang);
        let written = match act {
            Act::Say(bytes) => stream.write_all(&bytes).await,
            Act::SayAndReset(bytes) => {
                let _ = stream.write_all(&bytes).await;
                tokio::time::sleep(Duration::from_millis(30)).await;
                let _ = stream.set_zero_linger();
                return;
            }
            Act::Drip(parts, pause) => drip(&mut stream, &parts, pause).await,
            Act::Gated(parts, gate) => gated(&mut stream, &parts, &gate).await,
            Act::Hang => {
                tokio::time::sleep(Duration::from_secs(600)).await;
                return;
            }
            Act::Flood(mib) => {
                flood(&mut stream, "application/json", b"{\"x\":\"", b"y", mib).await
            }
            Act::FloodEvents(mib) => {
                let event = format!("data: {{\"x\":\"{}\"}}\n\n", "y".repeat(1024 - 16));
                flood(&mut stream, "text/event-stream", b"", event.as_bytes(), mib).await
            }
            Act::FloodOneEvent(mib) => {
                let start = b"data: {\"choices\":[],\"usage\":\"";
                flood(&mut stream, "text/event-stream", start, b"y", mib).await
            }
        };
        if written.is_err() {
            return;
        }
    }
}

async fn drip(stream: &mut TcpStream, parts: &[Vec<u8>], pause: Duration) -> std::io::Result<()> {
    for part in parts {
        stream.write_all(part).await?;
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

async fn gated(stream: &mut TcpStream, parts: &[Vec<u8>], gate: &Semaphore) -> std::io::Result<()> {
    for part in parts {
        gate.acquire().await.unwrap().forget();
        stream.write_all(part).await?;
    }
    Ok(())
}

/// `unit` again and again, up to so many MiB, which it divides; over it at the start `start`.
async fn flood(
    stream: &mut TcpStream,
    kind: &str,
    start: &[u8],
    unit: &[u8],
    mib: usize,
) -> std::io::Result<()> {
    let length = mib << 20;
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mebibyte = unit.repeat((1 << 20) / unit.len());
    stream.write_all(start).await?;
    stream.write_all(&mebibyte[start.len()..]).await?;
    for _ in 1..mib {
        stream.write_all(&mebibyte).await?;
    }
    Ok(())
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let text = String::from_utf8_lossy(&bytes).to_string();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.parse::<usize>().unwrap())
            });
            if body.len() >= length.unwrap_or(0) {
                return Some(text);
            }
        }
        let read = stream
            .read(&mut chunk)
            .await
            .ok()
            .filter(|read| *read > 0)?;
        bytes.extend_from_slice(&chunk[..read]);
    }
}

/// An answer with a head of its own making.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Act {
    let text = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    Act::Say(text.into_bytes())
}

/// A good chat answer.
pub(crate) fn good() -> Act {
    answer(
        "200 OK",
        "",
        r#"{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"}}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}"#,
    )
}

/// A 429 that asks for so many milliseconds.
pub(crate) fn full(retry_after_ms: u64) -> Act {
    let headers = format!("retry-after-ms: {retry_after_ms}\r\n");
    answer(
        "429 Too Many Requests",
        &headers,
        r#"{"error":{"code":"429","message":"full"}}"#,
    )
}

/// The head of a stream, and its chunks in HTTP's chunked form.
pub(crate) fn stream(chunks: &[&str], ends: bool) -> Vec<Vec<u8>> {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut parts = vec![head.as_bytes().to_vec()];
    for chunk in chunks {
        parts.push(format!("{:x}\r\n{chunk}\r\n", chunk.len()).into_bytes());
    }
    if ends {
        parts.push(b"0\r\n\r\n".to_vec());
    }
    parts
}

/// A stream of two chunks and its usage, in parts.
pub(crate) fn parts() -> Vec<Vec<u8>> {
    let chunks = [
        "data: {\"id\":\"c\",\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n",
        "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4,\"total_tokens\":13}}\n\n",
        "data: [DONE]\n\n",
    ];
    stream(&chunks, true)
}

/// A gateway over a PTU that plays `script` and a good PAYG deployment.
pub(crate) async fn over(script: Vec<Act>, more: &str) -> (Running, Scripted, Scripted) {
    let (a, b) = (
        Scripted::start(script).await,
        Scripted::start(vec![good()]).await,
    );
    let config = format!(
        "{OPEN}{more}{}{}",
        backend("a", a.address, "ptu", ""),
        backend("b", b.address, "payg", "")
    );
    (start(&config).await, a, b)
}
