//! A form, part by part as it comes.
//!
//! multer takes in all that has come before it looks at any of it, keeps it until it has found the next
//! part's content, and looks from the start each time. So it is handed pieces, and only so many of them
//! before a part's content: else a form that never comes to one would grow in memory for as long as it is sent.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use axum::BoxError;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use multer::{Field, Multipart};
use tower_http::timeout::TimeoutError;

use super::error::ApiError;

/// Most bytes that are taken in before they are looked at.
const PIECE: usize = 16 * 1024;

/// Most bytes from the end of a part to the content of the next one.
const MAX_HEAD: usize = 64 * 1024;

/// Longest value of a field that is none of a file's, bytes.
const MAX_FIELD: usize = 1024;

/// The parts of a form, one after the other.
pub(super) struct Parts {
    form: Multipart<'static>,
    /// Bytes that may still be handed out; see [`Pieces`].
    left: Arc<AtomicUsize>,
}

impl Parts {
    /// The parts of the form that begins with `start` and goes on with `rest`.
    pub(super) fn new<S, E>(boundary: String, start: Bytes, rest: S) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
        E: Into<BoxError>,
    {
        let left = Arc::new(AtomicUsize::new(MAX_HEAD));
        let pieces = Pieces {
            chunk: start,
            rest,
            fed: 0,
            left: Arc::clone(&left),
        };
        Self {
            form: Multipart::new(pieces, boundary),
            left,
        }
    }

    /// The next part; `None` behind the last. The one before has to be read to its end: what is left of
    /// it would count as the head of the next one.
    ///
    /// # Errors
    /// When the form can't be read, or breaks off.
    pub(super) async fn next(&mut self) -> Result<Option<Field<'static>>, ApiError> {
        self.left.store(MAX_HEAD, Ordering::Relaxed);
        let part = self.form.next_field().await;
        // How long a content may be is known by whoever reads it.
        self.left.store(usize::MAX, Ordering::Relaxed);
        part.map_err(|error| odd(&error))
    }
}

/// The next bytes of a part; `None` at its end.
///
/// # Errors
/// When the form can't be read, or breaks off.
pub(super) async fn chunk(part: &mut Field<'_>) -> Result<Option<Bytes>, ApiError> {
    part.chunk().await.map_err(|error| odd(&error))
}

/// The value of a field that is none of a file's.
///
/// # Errors
/// When it is too long, or as for [`chunk`].
pub(super) async fn text(part: &mut Field<'_>) -> Result<String, ApiError> {
    let mut text = Vec::new();
    while let Some(bytes) = chunk(part).await? {
        text.extend_from_slice(&bytes);
        if text.len() > MAX_FIELD {
            let message = format!("A field of the form has more than {MAX_FIELD} bytes.");
            return Err(ApiError::Form(message));
        }
    }
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

/// Why a body can't be read on.
pub(super) fn fault(error: &(dyn Error + 'static)) -> ApiError {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<TimeoutError>() {
            return ApiError::Late;
        }
        cause = error.source();
    }
    ApiError::Form("The body broke off.".into())
}

fn odd(error: &multer::Error) -> ApiError {
    match error {
        multer::Error::StreamReadFailed(error) => match error.downcast_ref::<Endless>() {
            Some(endless) => unreadable(endless),
            None => fault(&**error),
        },
        other => unreadable(other),
    }
}

fn unreadable(why: &dyn fmt::Display) -> ApiError {
    ApiError::Form(format!("The form can't be read: {why}."))
}

/// A form that comes to no part's content.
#[derive(Debug)]
struct Endless;

impl fmt::Display for Endless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = MAX_HEAD >> 10;
        write!(
            f,
            "there is no boundary, or no end of a part's head, within {most} KiB"
        )
    }
}

impl Error for Endless {}

/// A body in pieces, which ends with [`Endless`] where it goes on when no more may be handed out.
struct Pieces<S> {
    /// What was not handed out of the chunk that came last.
    chunk: Bytes,
    rest: S,
    /// Bytes handed out since multer was last told to wait: these it has not looked at.
    fed: usize,
    /// Bytes that may still be handed out.
    left: Arc<AtomicUsize>,
}

impl<S, E> Pieces<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<BoxError>,
{
    /// The next bytes, `most` at most.
    fn poll_bytes(
        &mut self,
        most: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BoxError>>> {
        while self.chunk.is_empty() {
            match ready!(self.rest.poll_next_unpin(cx)) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => return Poll::Ready(None),
            }
        }
        let length = self.chunk.len().min(most);
        Poll::Ready(Some(Ok(self.chunk.split_to(length))))
    }
}

impl<S, E> Stream for Pieces<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<BoxError>,
{
    type Item = Result<Bytes, BoxError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let left = this.left.load(Ordering::Relaxed);
        if this.fed > 0 && (this.fed >= PIECE || left == 0) {
            // multer asks on until it is told to wait. Only then it looks at what it has; what it needs
            // may be there.
            this.fed = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if left == 0 {
            return Poll::Ready(Some(Err(Endless.into())));
        }
        let bytes = this.poll_bytes(left.min(PIECE - this.fed), cx);
        match &bytes {
            Poll::Ready(Some(Ok(bytes))) => {
                this.fed += bytes.len();
                let left = left.saturating_sub(bytes.len());
                this.left.store(left, Ordering::Relaxed);
            }
            _ => this.fed = 0,
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;

    use super::*;

    /// The names and contents of a form's parts, each read to its end.
    async fn parts<S>(start: Bytes, rest: S) -> Result<Vec<(String, Vec<u8>)>, ApiError>
    where
        S: Stream<Item = Result<Bytes, Infallible>> + Send + Unpin + 'static,
    {
        let mut form = Parts::new("b".into(), start, rest);
        let mut found = Vec::new();
        while let Some(mut part) = form.next().await? {
            let name = part.name().unwrap_or_default().to_owned();
            let mut content = Vec::new();
            while let Some(bytes) = chunk(&mut part).await? {
                assert!(bytes.len() <= 2 * PIECE, "{} at once", bytes.len());
                content.extend_from_slice(&bytes);
            }
            found.push((name, content));
        }
        Ok(found)
    }

    /// A body in chunks of so many bytes.
    fn chunks(
        body: &[u8],
        size: usize,
    ) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + Unpin + use<> {
        let chunks = body.chunks(size);
        let chunks: Vec<_> = chunks.map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        stream::iter(chunks)
    }

    /// A body of blanks without an end, in chunks of so many, and how many were taken of it.
    fn blanks(
        size: usize,
    ) -> (
        impl Stream<Item = Result<Bytes, Infallible>> + Send + Unpin,
        Arc<AtomicUsize>,
    ) {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let chunks = stream::repeat(Bytes::from(vec![b' '; size])).map(move |chunk| {
            count.fetch_add(chunk.len(), Ordering::SeqCst);
            Ok::<_, Infallible>(chunk)
        });
        (chunks, taken)
    }

    /// A form with this file, its purpose behind it, and so long a line in the file's head.
    fn form(file: &[u8], line: usize) -> Vec<u8> {
        let line = "x".repeat(line);
        let mut form = format!(
            "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\nx-line: {line}\r\n\r\n"
        )
        .into_bytes();
        form.extend_from_slice(file);
        form.extend_from_slice(
            b"\r\n--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--b--\r\n",
        );
        form
    }

    #[tokio::test]
    async fn a_form_is_read_whole_whatever_pieces_it_comes_in() {
        // Much in it looks like the boundary, and all of it is more than a head may have.
        let file = b"\r\n--c \r\n-".repeat(20_000);
        for line in [0, 60_000] {
            let body = form(&file, line);
            let expected = [
                ("file".to_owned(), file.clone()),
                ("purpose".to_owned(), b"batch".to_vec()),
            ];
            for size in [1, 1000, PIECE, PIECE + 1, 1 << 20] {
                let found = parts(Bytes::new(), chunks(&body, size)).await.unwrap();
                assert!(found == expected, "{size}, {line}");
            }
            let found = parts(Bytes::from(body), stream::empty()).await.unwrap();
            assert!(found == expected, "in one piece, {line}");
        }
    }

    #[tokio::test]
    async fn a_boundary_or_a_heads_end_that_never_comes_is_not_waited_for() {
        let head = "--b\r\ncontent-disposition: form-data; name=\"file\"\r\nx-line: ";
        for start in ["", "--b", "--b\r\n", head] {
            for size in [1, 1000, 1 << 20] {
                let (rest, taken) = blanks(size);
                let error = parts(start.into(), rest).await.unwrap_err();
                let is_said =
                    matches!(&error, ApiError::Form(message) if message.contains("within 64 KiB"));
                assert!(is_said, "{error:?}");
                let taken = taken.load(Ordering::SeqCst);
                assert!(taken <= MAX_HEAD + size, "{taken} after {start:?}");
            }
        }
        let error = parts(vec![b' '; 1 << 20].into(), stream::empty()).await;
        assert!(matches!(error, Err(ApiError::Form(_))), "{error:?}");
    }

    #[tokio::test]
    async fn a_later_head_that_never_ends_is_not_waited_for_either() {
        let file = vec![b'x'; 1 << 20];
        let mut start = form(&file, 0);
        start.truncate(start.len() - "\r\n\r\nbatch\r\n--b--\r\n".len());
        let (rest, taken) = blanks(1000);
        let error = parts(start.into(), rest).await;
        assert!(matches!(error, Err(ApiError::Form(_))), "{error:?}");
        // A piece may have come with the end of the file.
        assert!(taken.load(Ordering::SeqCst) <= MAX_HEAD + PIECE + 1000);
    }

    #[tokio::test]
    async fn a_form_that_breaks_off_and_a_field_that_is_too_long_are_said_to_be() {
        let body = form(b"{}", 0);
        for length in [0, 2, 20, body.len() - 10] {
            let cut = chunks(body.split_at(length).0, 7);
            let error = parts(Bytes::new(), cut).await;
            assert!(matches!(error, Err(ApiError::Form(_))), "{length}");
        }
        for (length, fits) in [(MAX_FIELD, true), (MAX_FIELD + 1, false)] {
            let body = form(&vec![b'x'; length], 0);
            let mut parts = Parts::new("b".into(), Bytes::new(), chunks(&body, 100));
            let mut part = parts.next().await.unwrap().unwrap();
            assert_eq!(text(&mut part).await.is_ok(), fits);
        }
    }
}
