//! The backend of the benchmark: answers chat calls from memory, as fast as it is asked to.
//!
//! It plays a deployment in as many ways as the parts need: at once or after a delay, streamed
//! with gaps, and as a PTU deployment that admits a rate and refuses what is over it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::canned::{self, Canned};

/// Threads of a backend: as many as the peers' workers.
const THREADS: usize = 2;

/// The largest request, bytes.
const MAX_REQUEST: usize = 1 << 20;

/// How a backend answers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Behaviour {
    /// Before an answer that is not streamed.
    pub(crate) delay: Duration,
    /// Before a stream's head and first chunk, which come together.
    pub(crate) first_token: Duration,
    /// Chunks of a stream, beside the one with the usage.
    pub(crate) chunks: u32,
    /// Between two chunks.
    pub(crate) gap: Duration,
    /// Calls admitted, as a PTU deployment does; none: all of them.
    pub(crate) admits: Option<Rate>,
}

/// A rate, held by a token bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    pub(crate) burst: f64,
}

/// What a backend answered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) good: u64,
    pub(crate) throttled: u64,
}

/// A backend that runs until the process ends.
pub(crate) struct Mock {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    canned: Canned,
    behaviour: Mutex<Behaviour>,
    bucket: Mutex<Bucket>,
    good: AtomicU64,
    throttled: AtomicU64,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// Takes a token, or says how long until there is one.
    fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let since = now.duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + since * rate.per_second).min(rate.burst);
        self.filled = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64(
            (1.0 - self.tokens) / rate.per_second,
        ))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mock {
    /// Starts a backend on a port.
    pub(crate) fn start(port: u16) -> io::Result<Self> {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            canned: Canned::new(),
            behaviour: Mutex::default(),
            bucket: Mutex::new(Bucket {
                tokens: 0.0,
                filled: Instant::now(),
            }),
            good: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
        });
        let mut workers = Vec::new();
        for _ in 0..THREADS {
            let (sender, receiver) = mpsc::unbounded_channel();
            let shared = Arc::clone(&shared);
            thread::Builder::new().spawn(move || work(&shared, receiver))?;
            workers.push(sender);
        }
        thread::Builder::new().spawn(move || deal(&listener, &workers))?;
        Ok(Self { address, shared })
    }

    /// Answers like this from now on, with full buckets and counts at 0.
    pub(crate) fn play(&self, behaviour: Behaviour) {
        *lock(&self.shared.behaviour) = behaviour;
        *lock(&self.shared.bucket) = Bucket {
            tokens: behaviour.admits.map_or(0.0, |rate| rate.burst),
            filled: Instant::now(),
        };
        self.shared.good.store(0, Relaxed);
        self.shared.throttled.store(0, Relaxed);
    }

    /// What was answered since the last [`play`](Self::play).
    pub(crate) fn count(&self) -> Count {
        Count {
            good: self.shared.good.load(Relaxed),
            throttled: self.shared.throttled.load(Relaxed),
        }
    }
}

/// Deals connections out to the threads in turn.
fn deal(listener: &StdListener, workers: &[mpsc::UnboundedSender<std::net::TcpStream>]) {
    for worker in workers.iter().cycle() {
        let Ok((stream, _)) = listener.accept() else {
            return;
        };
        let ready = stream.set_nodelay(true).and(stream.set_nonblocking(true));
        if ready.is_err() || worker.send(stream).is_err() {
            return;
        }
    }
}

fn work(shared: &Arc<Shared>, mut streams: mpsc::UnboundedReceiver<std::net::TcpStream>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        while let Some(stream) = streams.recv().await {
            let Ok(stream) = TcpStream::from_std(stream) else {
                continue;
            };
            let shared = Arc::clone(shared);
            // A client that leaves ends its connection, nothing else.
            tokio::spawn(async move { serve(stream, &shared).await });
        }
    });
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(4096);
    loop {
        let Some(length) = next_request(&mut stream, &mut buffer).await? else {
            return Ok(());
        };
        let wants_stream = memmem::find(&buffer, br#""stream":true"#).is_some()
            || memmem::find(&buffer, br#""stream": true"#).is_some();
        buffer.drain(..length);
        answer(&mut stream, shared, wants_stream).await?;
    }
}

/// Reads on until a whole request stands at the start of `buffer`: its bytes; `None` where the client has
/// left.
pub(crate) async fn next_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<usize>> {
    loop {
        match request_length(buffer)? {
            Some(length) if buffer.len() >= length => return Ok(Some(length)),
            _ if buffer.len() > MAX_REQUEST => return Err(io::ErrorKind::InvalidData.into()),
            _ if stream.read_buf(buffer).await? == 0 => return Ok(None),
            _ => {}
        }
    }
}

/// Bytes of the request at the start of `bytes`, once its head is there.
fn request_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let mut length = 0;
    for line in bytes.get(..end).unwrap_or_default().split(|b| *b == b'\n') {
        if let Some(value) = field(line, b"content-length:") {
            length = value.parse().map_err(io::Error::other)?;
        } else if field(line, b"transfer-encoding:").is_some() {
            return Err(io::Error::other("a request of unknown length"));
        }
    }
    Ok(Some(end + 4 + length))
}

fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a str> {
    let start = line.get(..name.len())?;
    if !start.eq_ignore_ascii_case(name) {
        return None;
    }
    let value = line.get(name.len()..)?;
    std::str::from_utf8(value).ok().map(str::trim)
}

async fn answer(stream: &mut TcpStream, shared: &Shared, streamed: bool) -> io::Result<()> {
    let behaviour = *lock(&shared.behaviour);
    if let Some(rate) = behaviour.admits {
        let taken = lock(&shared.bucket).take(rate, Instant::now());
        if let Err(wait) = taken {
            shared.throttled.fetch_add(1, Relaxed);
            return stream.write_all(&canned::throttled(wait)).await;
        }
    }
    shared.good.fetch_add(1, Relaxed);
    if streamed {
        return answer_in_chunks(stream, &shared.canned, behaviour).await;
    }
    if !behaviour.delay.is_zero() {
        tokio::time::sleep(behaviour.delay).await;
    }
    stream.write_all(&shared.canned.whole).await
}

async fn answer_in_chunks(
    stream: &mut TcpStream,
    canned: &Canned,
    behaviour: Behaviour,
) -> io::Result<()> {
    if !behaviour.first_token.is_zero() {
        tokio::time::sleep(behaviour.first_token).await;
    }
    stream.write_all(&canned.stream_start).await?;
    let further = behaviour.chunks.saturating_sub(1);
    let further = usize::try_from(further).map_err(io::Error::other)?;
    for chunk in canned.chunks.iter().cycle().take(further) {
        if behaviour.gap.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(behaviour.gap).await;
        }
        stream.write_all(chunk).await?;
    }
    stream.write_all(&canned.stream_end).await
}

/// Waits for ever: the threads serve.
pub(crate) fn serve_forever() -> ! {
    loop {
        thread::park();
    }
}
