//! A client that writes its bytes as a test says and reads answers byte by byte.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for an answer's next bytes.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to a gateway.
pub(crate) struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    pub(crate) status: u16,
    /// Status line and headers, names in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl RawAnswer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            read: Vec::new(),
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Writes as much of `bytes` as the other side takes.
    pub(crate) async fn write_what_is_taken(&mut self, bytes: &[u8]) {
        let _ = timeout(PATIENCE, self.stream.write_all(bytes)).await;
    }

    /// Sends no more, and reads what is still answered.
    pub(crate) async fn ends(&mut self) {
        self.stream.shutdown().await.unwrap();
        while self.more().await {}
    }

    /// Reads an answer's status line and headers.
    pub(crate) async fn head(&mut self) -> (u16, String) {
        let end = self.find(b"\r\n\r\n").await;
        let head: Vec<u8> = self.read.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let status = head[9..12].parse().unwrap();
        (status, head)
    }

    /// Reads one chunk of an answer in HTTP's chunked form; `None` after the last.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.find(b"\r\n").await;
        let size: Vec<u8> = self.read.drain(..line + 2).collect();
        let size = std::str::from_utf8(&size).unwrap().trim();
        let size = usize::from_str_radix(size, 16).unwrap();
        while self.read.len() < size + 2 {
            assert!(self.more().await, "the answer broke off");
        }
        let chunk: Vec<u8> = self.read.drain(..size).collect();
        self.read.drain(..2);
        (size > 0).then_some(chunk)
    }

    /// Reads a whole answer.
    pub(crate) async fn answer(&mut self) -> RawAnswer {
        let (status, head) = self.head().await;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = Vec::new();
        if let Some(length) = length {
            let length = length.parse().unwrap();
            while self.read.len() < length {
                assert!(self.more().await, "the answer broke off");
            }
            body.extend(self.read.drain(..length));
        } else if head.contains("transfer-encoding: chunked") {
            while let Some(chunk) = self.chunk().await {
                body.extend(chunk);
            }
        }
        let body = String::from_utf8(body).unwrap();
        RawAnswer { status, head, body }
    }

    /// Waits for an answer's first bytes, or the end, for so long.
    pub(crate) async fn hears_within(&mut self, time: Duration) {
        let read = timeout(time, self.stream.read_buf(&mut self.read)).await;
        assert!(read.is_ok(), "nothing within {time:?}");
    }

    /// Whether the other side has closed the connection, without a byte more.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.read.is_empty() && !self.more().await
    }

    async fn find(&mut self, end: &[u8]) -> usize {
        loop {
            let found = self.read.windows(end.len()).position(|w| w == end);
            if let Some(at) = found {
                return at;
            }
            assert!(
                self.more().await,
                "closed after {:?}",
                String::from_utf8_lossy(&self.read)
            );
        }
    }

    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
        let read = read.unwrap_or_else(|_| panic!("no bytes within 10 s"));
        read.unwrap_or(0) > 0
    }
}

/// A request in HTTP's chunked form, the body cut after each `size` bytes.
pub(crate) fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in body.chunks(size) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}
