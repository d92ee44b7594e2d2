//! How the crate's requests reach Table Storage: its HTTP client.
//!
//! The crate's own clients bring a second TLS library, or open a connection a request and trust no
//! private root. This one is the gateway's, with its time-outs, and mends what the crate does not
//! do itself: the text of transactions, refusals inside answers, the service's shape of errors.
//!
//! The gateway's token is put in here, on the way out, so that the crate never has it: its
//! `Debug` of headers prints `Authorization` in clear (azure_core 0.21, `headers/mod.rs`).

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use azure_core_tables::headers::Headers;
use azure_core_tables::{Body, BytesStream, HttpClient, Request, Response};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::batch;
use super::fault::{Fault, Refusal};
use crate::azure::own_token::OwnToken;
use crate::azure::{Unread, describe, whole};
use crate::host::clock::Clock;

/// Longest that the first request waits for the gateway's first token.
const TOKEN_PATIENCE: Duration = Duration::from_secs(3);

/// Largest answer that is read, bytes. A page has at most 4 MiB of properties; the full metadata
/// of 1,000 rows comes on top.
const MAX_ANSWER: usize = 16 << 20;

/// The code of a refusal, at Azurite; the real service has it in the body.
const ERROR_CODE: &str = "x-ms-error-code";

/// Who asks.
#[derive(Clone)]
pub(super) enum Asker {
    /// The gateway's own identity.
    Token(Arc<OwnToken>),
    /// The crate signs, with the emulator's key.
    Signed,
}

/// The HTTP client of the crate.
pub(super) struct Transport {
    client: reqwest::Client,
    asker: Asker,
    clock: Clock,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").finish_non_exhaustive()
    }
}

type Answer<'a> = Pin<Box<dyn Future<Output = azure_core_tables::Result<Response>> + Send + 'a>>;

/// The trait is made with `async_trait`; this is what that stands for.
impl HttpClient for Transport {
    fn execute_request<'s, 'r, 'a>(&'s self, request: &'r Request) -> Answer<'a>
    where
        's: 'a,
        'r: 'a,
        Self: 'a,
    {
        Box::pin(async move { Ok(self.execute(request).await?) })
    }
}

impl Transport {
    pub(super) fn new(client: reqwest::Client, asker: Asker) -> Self {
        Self {
            client,
            asker,
            clock: Clock::new(),
        }
    }

    async fn execute(&self, request: &Request) -> Result<Response, Fault> {
        let request = self.outgoing(request).await?;
        let is_batch = is_batch(request.headers());
        let answer = self.client.execute(request).await.map_err(no_answer)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = collect(answer).await?;
        check(status, &headers, &body)?;
        if is_batch {
            check_batch(&headers, &body)?;
        }
        incoming(status, &headers, body)
    }

    /// The crate's request as it is sent.
    async fn outgoing(&self, request: &Request) -> Result<reqwest::Request, Fault> {
        let odd = |what: &str| Fault::NoAnswer(format!("the request has an odd {what}"));
        let method = Method::from_bytes(request.method().as_ref().as_bytes());
        let mut outgoing =
            reqwest::Request::new(method.map_err(|_| odd("method"))?, request.url().clone());
        let headers = outgoing.headers_mut();
        for (name, value) in request.headers().iter() {
            let name: HeaderName = name.as_str().parse().map_err(|_| odd("header"))?;
            let value = HeaderValue::from_str(value.as_str()).map_err(|_| odd("header"))?;
            headers.insert(name, value);
        }
        // It is counted anew: the body may change.
        headers.remove(CONTENT_LENGTH);
        // Without it errors are XML.
        let json = HeaderValue::from_static("application/json;odata=fullmetadata");
        headers.entry(ACCEPT).or_insert(json);
        if let Asker::Token(token) = &self.asker {
            let header = token.header(self.clock.now(), TOKEN_PATIENCE).await;
            headers.insert(AUTHORIZATION, header.map_err(|_| Fault::NoToken)?);
        }
        let is_batch = is_batch(headers);
        let Body::Bytes(body) = request.body() else {
            return Err(odd("body"));
        };
        let body = if is_batch {
            let text = std::str::from_utf8(body).map_err(|_| odd("body"))?;
            Bytes::from(batch::put_right(text))
        } else {
            body.clone()
        };
        if body.len() > batch::MAX_BYTES {
            return Err(Fault::TooLarge(body.len()));
        }
        *outgoing.body_mut() = Some(body.into());
        Ok(outgoing)
    }
}

fn is_batch(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(batch::MEDIA_TYPE.as_bytes()))
}

async fn collect(answer: reqwest::Response) -> Result<Bytes, Fault> {
    let body = whole(answer, MAX_ANSWER).await.map_err(|why| match why {
        Unread::Broken(error) => no_answer(error),
        Unread::TooLarge => Fault::NoAnswer(format!("its answer has more than {MAX_ANSWER} bytes")),
    })?;
    Ok(body.into())
}

fn check(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<(), Fault> {
    if status.is_success() {
        return Ok(());
    }
    let body = String::from_utf8_lossy(body);
    Err(Fault::Refusal(Refusal::read(status, code(headers), &body)))
}

/// Takes a refusal out of a transaction's answer, which is 202 itself.
fn check_batch(headers: &HeaderMap, body: &[u8]) -> Result<(), Fault> {
    let body = String::from_utf8_lossy(body);
    match batch::refusal(&body) {
        Some((status, body)) => Err(Fault::Refusal(Refusal::read(status, code(headers), body))),
        None => Ok(()),
    }
}

fn code(headers: &HeaderMap) -> Option<&str> {
    headers.get(ERROR_CODE).and_then(|code| code.to_str().ok())
}

/// An answer as the crate takes it.
fn incoming(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Result<Response, Fault> {
    let status = azure_core_tables::StatusCode::try_from(status.as_u16())
        .map_err(|_| Fault::NoAnswer(format!("it says {status}")))?;
    let mut incoming = Headers::new();
    for (name, value) in headers {
        if let Ok(value) = value.to_str() {
            incoming.insert(name.as_str().to_owned(), value.to_owned());
        }
    }
    let body = Box::pin(BytesStream::new(body));
    Ok(Response::new(status, incoming, body))
}

/// The URL is left out: it names rows.
fn no_answer(error: reqwest::Error) -> Fault {
    Fault::NoAnswer(describe(&error.without_url()))
}
