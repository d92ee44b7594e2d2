//! Clients of streams: time to the first chunk, chunks a second, and many streams held open.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::canned::CHUNK_MARK;
use crate::http::{chat_body, head, request};

/// The last chunk of the transfer encoding, and the line end before it.
const LAST: &[u8] = b"\r\n0\r\n\r\n";

/// The longest wait for more of a stream.
const PATIENCE: Duration = Duration::from_secs(30);

/// One stream of an answer.
struct Stream {
    connection: TcpStream,
    buffer: Vec<u8>,
    /// Bytes at the buffer's start whose chunks have been counted.
    counted: usize,
    sent: Instant,
}

/// What one read of a stream brought.
struct Part {
    chunks: usize,
    is_last: bool,
}

impl Stream {
    async fn connect(address: SocketAddr) -> io::Result<Self> {
        let connection = TcpStream::connect(address).await?;
        connection.set_nodelay(true)?;
        Ok(Self {
            connection,
            buffer: Vec::with_capacity(16 * 1024),
            counted: 0,
            sent: Instant::now(),
        })
    }

    /// Asks for a stream and waits for its first chunk.
    async fn open(&mut self, request: &[u8]) -> io::Result<Part> {
        self.buffer.clear();
        self.counted = 0;
        self.sent = Instant::now();
        self.connection.write_all(request).await?;
        loop {
            self.read().await?;
            let Some(head) = head(&self.buffer)? else {
                continue;
            };
            if head.status != 200 {
                let text = String::from_utf8_lossy(&self.buffer).into_owned();
                return Err(io::Error::other(format!("a stream was answered {text}")));
            }
            if memchr::memchr(CHUNK_MARK, &self.buffer).is_some() {
                return Ok(self.take());
            }
        }
    }

    async fn next(&mut self) -> io::Result<Part> {
        self.read().await?;
        Ok(self.take())
    }

    async fn read(&mut self) -> io::Result<()> {
        let read = self.connection.read_buf(&mut self.buffer);
        match tokio::time::timeout(PATIENCE, read).await?? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Counts what is new in the buffer, and keeps only what could be the start of the end.
    fn take(&mut self) -> Part {
        let new = self.buffer.get(self.counted..).unwrap_or_default();
        let part = Part {
            chunks: memchr::memchr_iter(CHUNK_MARK, new).count(),
            is_last: self.buffer.ends_with(LAST),
        };
        self.counted = self.buffer.len().min(LAST.len() - 1);
        self.buffer.drain(..self.buffer.len() - self.counted);
        part
    }
}

/// What a number of streams at once found.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// From sending a call to the first chunk of its answer, sorted.
    pub(crate) first_chunk: Vec<Duration>,
    /// Chunks of text received.
    pub(crate) chunks: usize,
    /// How long it took.
    pub(crate) lasted: Duration,
}

/// Streams answers of so many chunks, `clients` at a time, one after the other on each
/// connection. What still runs at the end is left.
pub(crate) fn run(
    address: SocketAddr,
    clients: usize,
    chunks: usize,
    lasting: Duration,
) -> io::Result<Streams> {
    block_on(async move {
        let begin = Instant::now();
        let tasks = (0..clients).map(|_| {
            tokio::task::spawn_local(async move {
                let request = request(&chat_body(true));
                let mut found = Streams::default();
                let mut stream = Stream::connect(address).await?;
                while begin.elapsed() < lasting {
                    let mut part = stream.open(&request).await?;
                    found.first_chunk.push(stream.sent.elapsed());
                    let mut received = part.chunks;
                    while !part.is_last && begin.elapsed() < lasting {
                        part = stream.next().await?;
                        received += part.chunks;
                    }
                    if part.is_last && received < chunks {
                        let why = format!("a stream ended after {received} of {chunks} chunks");
                        return Err(io::Error::other(why));
                    }
                    found.chunks += received;
                }
                io::Result::Ok(found)
            })
        });
        let tasks: Vec<_> = tasks.collect();
        let mut all = Streams::default();
        for task in tasks {
            let found = task.await.map_err(io::Error::other)??;
            all.first_chunk.extend(found.first_chunk);
            all.chunks += found.chunks;
        }
        all.lasted = begin.elapsed();
        all.first_chunk.sort_unstable();
        Ok(all)
    })
}

/// Opens `count` streams, holds them for some time with `look` called now and then, and fails
/// where one of them ended before that.
pub(crate) fn hold(
    address: SocketAddr,
    count: usize,
    lasting: Duration,
    mut look: impl FnMut() -> io::Result<()>,
) -> io::Result<()> {
    block_on(async move {
        let running = Rc::new(Cell::new(0_usize));
        let request: Rc<[u8]> = request(&chat_body(true)).into();
        for _ in 0..count {
            let mut stream = Stream::connect(address).await?;
            let (running, request) = (Rc::clone(&running), Rc::clone(&request));
            tokio::task::spawn_local(async move {
                let opened = stream.open(&request).await;
                running.set(running.get() + 1);
                let mut is_open = opened.is_ok();
                while is_open {
                    is_open = stream.next().await.is_ok_and(|part| !part.is_last);
                }
                running.set(running.get() - 1);
            });
        }
        let begin = Instant::now();
        while running.get() < count && begin.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let begin = Instant::now();
        while begin.elapsed() < lasting {
            tokio::time::sleep(Duration::from_millis(250)).await;
            look()?;
        }
        if running.get() < count {
            let open = running.get();
            return Err(io::Error::other(format!(
                "{open} of {count} streams stayed open"
            )));
        }
        Ok(())
    })
}

fn block_on<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, work)
}
