//! HTTP/1.1 as the load needs it: requests as bytes, answers read to their end.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use memchr::memmem;

/// The key that the clients show: an app's at Spillway, the master key at `LiteLLM`.
pub(crate) const KEY: &str = "sk-bench";

/// The key of an app that does not keep to its limit.
pub(crate) const FLOOD_KEY: &str = "sk-flood";

/// What a client shows.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    Key(&'static str),
    Token(String),
}

impl Credential {
    /// The header that shows it, and the header's value.
    pub(crate) fn header(&self) -> (&'static str, String) {
        match self {
            Self::Key(key) => ("api-key", (*key).to_owned()),
            Self::Token(token) => ("authorization", format!("Bearer {token}")),
        }
    }
}

/// The URL in Azure's classic form, which every peer serves.
pub(crate) const PATH: &str = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";

/// The longest that a client waits for more of an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The body of a chat call: some 200 tokens of prompt.
pub(crate) fn chat_body(stream: bool) -> String {
    let context = "The customer has a pump of the 7400 series that was delivered in March. \
        Its pressure falls by a third within ten minutes of running, then it recovers. "
        .repeat(5);
    let options = if stream {
        r#","stream":true,"stream_options":{"include_usage":true}"#
    } else {
        ""
    };
    format!(
        r#"{{"model":"gpt-4o","messages":[{{"role":"system","content":"You help the service desk of a maker of pumps. Answer briefly."}},{{"role":"user","content":"{context}What should be checked first?"}}],"temperature":0.2,"max_tokens":400{options}}}"#
    )
}

/// A whole request.
pub(crate) fn request(body: &str) -> Vec<u8> {
    request_as(&Credential::Key(KEY), body)
}

/// As [`request`], with another credential.
pub(crate) fn request_as(credential: &Credential, body: &str) -> Vec<u8> {
    let (name, value) = credential.header();
    format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         {name}: {value}\r\nuser-agent: spillway-bench\r\naccept: */*\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// How an answer's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// After so many bytes.
    Length(usize),
    /// With a chunk of no bytes.
    Chunked,
}

/// An answer's head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Bytes of the head.
    pub(crate) len: usize,
    pub(crate) end: End,
    /// The server will close the connection.
    pub(crate) closes: bool,
}

/// The head at the start of `bytes`, once all of it is there.
pub(crate) fn head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let Some(at) = memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "an answer that is not HTTP/1.1");
    let text = bytes
        .get(..at)
        .and_then(|head| std::str::from_utf8(head).ok());
    let mut lines = text.ok_or_else(bad)?.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let status = status.and_then(|line| line.get(..3)?.parse().ok());
    let mut head = Head {
        status: status.ok_or_else(bad)?,
        len: at + 4,
        end: End::Length(0),
        closes: false,
    };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            head.end = End::Length(value.parse().map_err(|_| bad())?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            head.end = End::Chunked;
        } else if name.eq_ignore_ascii_case("connection") {
            head.closes = value.eq_ignore_ascii_case("close");
        }
    }
    Ok(Some(head))
}

/// Whether `body` is all of it. A chunked one is over where it ends with the last chunk, which
/// holds for these answers: none has a line like that within its text.
pub(crate) fn is_whole(body: &[u8], end: End) -> bool {
    match end {
        End::Length(length) => body.len() >= length,
        End::Chunked => body == b"0\r\n\r\n" || body.ends_with(b"\r\n0\r\n\r\n"),
    }
}

/// A client with one connection that blocks until the answer is there.
pub(crate) struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

impl Client {
    pub(crate) const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
            buffer: Vec::new(),
        }
    }

    /// Makes the connection where there is none.
    pub(crate) fn connect(&mut self) -> io::Result<&mut TcpStream> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream
            }
        };
        Ok(self.stream.insert(stream))
    }

    /// Sends `request` and reads the answer.
    pub(crate) fn call(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        let called = self.exchange(request);
        match called {
            Ok(head) if head.closes => self.stream = None,
            Ok(_) => {}
            Err(_) => self.stream = None,
        }
        let head = called?;
        Ok(Answer {
            status: head.status,
            body: self.buffer.get(head.len..).unwrap_or_default(),
        })
    }

    fn exchange(&mut self, request: &[u8]) -> io::Result<Head> {
        self.buffer.clear();
        self.connect()?.write_all(request)?;
        let mut part = [0; 16 * 1024];
        loop {
            let read = self.connect()?.read(&mut part)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend(part.iter().take(read));
            if let Some(head) = head(&self.buffer)?
                && is_whole(self.buffer.get(head.len..).unwrap_or_default(), head.end)
            {
                return Ok(head);
            }
        }
    }
}
