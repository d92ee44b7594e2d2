//! The deployments behind the gateway: they answer from a call's own name, fail as they are told to,
//! and count what they answered to the end. What they count is the reckoning that rows are held against.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use memchr::memmem;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::lock;
use crate::mock::next_request;

/// Chunks of a stream beside the one with the usage, and between two of them.
const CHUNKS: usize = 8;
const GAP: Duration = Duration::from_millis(30);

/// Before an answer that is not streamed, and before the first chunk.
const DELAY: Duration = Duration::from_millis(20);

/// Before it, by a deployment that is slow.
const SLOW: Duration = Duration::from_secs(2);

/// Connections that are idle for so long are closed, so that those that are open are those in use.
pub(super) const IDLE: Duration = Duration::from_secs(10);

/// What is wrong with a deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It answers 500.
    Error,
    /// It answers 429, with a second to wait.
    Full,
    /// It resets the connection before it answers.
    Reset,
    /// It hangs up in the middle of a stream, and before the answer to other calls.
    HangUp,
    /// It takes two seconds to the first byte.
    Slow,
}

impl Fault {
    /// In the report and the plot.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Error => "500",
            Self::Full => "429",
            Self::Reset => "reset",
            Self::HangUp => "hang-up",
            Self::Slow => "slow",
        }
    }
}

/// Calls and what they used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) calls: u64,
    pub(super) input: u64,
    pub(super) output: u64,
}

impl Tally {
    pub(super) fn add(&mut self, input: u64, output: u64) {
        self.calls += 1;
        self.input += input;
        self.output += output;
    }
}

/// What all deployments count together.
#[derive(Debug, Default)]
pub(super) struct Reckoning {
    /// Answers written to their end, by app.
    pub(super) served: BTreeMap<String, Tally>,
    /// Streams broken off after their first chunks.
    pub(super) cut: u64,
    /// Calls met with a fault, slow ones beside.
    pub(super) faults: u64,
}

/// A deployment's endpoint. It runs until the process ends.
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    fault: Arc<Mutex<Fault>>,
}

impl Backend {
    pub(super) async fn start(reckoning: &Arc<Mutex<Reckoning>>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let backend = Self {
            address: listener.local_addr()?,
            fault: Arc::default(),
        };
        let (fault, reckoning) = (Arc::clone(&backend.fault), Arc::clone(reckoning));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (fault, reckoning) = (Arc::clone(&fault), Arc::clone(&reckoning));
                // A gateway that leaves ends its connection, nothing else.
                tokio::spawn(async move { serve(stream, &fault, &reckoning).await });
            }
        });
        Ok(backend)
    }

    /// From now on this is wrong with it.
    pub(super) fn suffer(&self, fault: Fault) {
        *lock(&self.fault) = fault;
    }
}

/// A call as the backend reads it.
struct Call {
    app: String,
    number: u64,
    wants_stream: bool,
    is_embedding: bool,
}

/// A call's name, which its request has as `user` and its answer as `id`.
pub(super) fn name(app: &str, number: u64) -> String {
    format!("call.{app}.{number}.")
}

/// Tokens that a call uses: input and output.
pub(super) const fn tokens(number: u64, is_embedding: bool) -> (u64, u64) {
    let output = if is_embedding { 0 } else { 20 + number % 31 };
    (100 + number % 97, output)
}

fn read(request: &[u8]) -> Option<Call> {
    let text = std::str::from_utf8(request).ok()?;
    let mut name = text.split_once("call.")?.1.split('.');
    Some(Call {
        app: name.next()?.to_owned(),
        number: name.next()?.parse().ok()?,
        wants_stream: text.contains(r#""stream":true"#),
        is_embedding: text
            .split_once("\r\n")
            .is_some_and(|(line, _)| line.contains("embeddings")),
    })
}

async fn serve(
    mut stream: TcpStream,
    fault: &Mutex<Fault>,
    reckoning: &Mutex<Reckoning>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4096);
    loop {
        let next = timeout(IDLE, next_request(&mut stream, &mut buffer));
        let Some(length) = next.await?? else {
            return Ok(());
        };
        let request: Vec<u8> = buffer.drain(..length).collect();
        let Some(call) = read(&request) else {
            stream.write_all(&refusal("400 Bad Request", "")).await?;
            continue;
        };
        let fault = *lock(fault);
        if fault != Fault::None {
            lock(reckoning).faults += 1;
        }
        match fault {
            Fault::Error => {
                let answer = refusal("500 Internal Server Error", "");
                stream.write_all(&answer).await?;
                continue;
            }
            Fault::Full => {
                let answer = refusal("429 Too Many Requests", "retry-after: 1\r\n");
                stream.write_all(&answer).await?;
                continue;
            }
            Fault::Reset => return stream.set_zero_linger(),
            Fault::HangUp if !call.wants_stream => return Ok(()),
            Fault::Slow => sleep(SLOW).await,
            Fault::None | Fault::HangUp => {}
        }
        sleep(DELAY).await;
        if !answer(&mut stream, &call, fault).await? {
            lock(reckoning).cut += 1;
            return Ok(());
        }
        let (input, output) = tokens(call.number, call.is_embedding);
        let mut reckoning = lock(reckoning);
        reckoning
            .served
            .entry(call.app)
            .or_default()
            .add(input, output);
    }
}

fn refusal(status: &str, headers: &str) -> Vec<u8> {
    let body = r#"{"error":{"code":"soak","message":"This deployment was told to fail."}}"#;
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Writes the answer; `false`: it was broken off.
async fn answer(stream: &mut TcpStream, call: &Call, fault: Fault) -> io::Result<bool> {
    let name = name(&call.app, call.number);
    let (input, output) = tokens(call.number, call.is_embedding);
    let usage = format!(
        r#"{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{}}}"#,
        input + output
    );
    if !call.wants_stream {
        let body = if call.is_embedding {
            format!(
                r#"{{"object":"list","id":"{name}","data":[{{"object":"embedding","index":0,"embedding":[0.25,-0.5,0.125]}}],"model":"text-embedding-3-small","usage":{usage}}}"#
            )
        } else {
            format!(
                r#"{{"id":"{name}","object":"chat.completion","created":1764020000,"model":"gpt-4o-2024-11-20","choices":[{{"index":0,"finish_reason":"stop","message":{{"role":"assistant","content":"Check the suction side first."}}}}],"usage":{usage}}}"#
            )
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await?;
        return Ok(true);
    }
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let event = |choices: &str, usage: &str| {
        frame(&format!(
            "data: {{\"id\":\"{name}\",\"object\":\"chat.completion.chunk\",\"created\":1764020000,\"model\":\"gpt-4o-2024-11-20\",\"choices\":[{choices}],\"usage\":{usage}}}\n\n"
        ))
    };
    let delta = r#"{"index":0,"delta":{"content":" pump"},"finish_reason":null}"#;
    for chunk in 0..CHUNKS {
        if fault == Fault::HangUp && chunk == CHUNKS / 2 {
            return Ok(false);
        }
        stream.write_all(event(delta, "null").as_bytes()).await?;
        sleep(GAP).await;
    }
    let end = event("", &usage) + &frame("data: [DONE]\n\n") + "0\r\n\r\n";
    stream.write_all(end.as_bytes()).await?;
    Ok(true)
}

/// A chunk of the transfer encoding.
fn frame(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// Whether a stream says that it was broken off.
pub(super) fn is_cut(body: &[u8]) -> bool {
    memmem::find(body, br#""code":"stream_cut""#).is_some()
}
