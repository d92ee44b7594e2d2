//! The lines of a blob, read as they are asked for: in memory are a part of it and a line.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::task::yield_now;

use crate::store::blobs::{Blob, BlobError, Blobs};

/// How much is read at once, bytes.
const STEP: u64 = 1 << 20;

/// After so many lines others have their turn: a part that was read has up to a million, with nothing to
/// wait for between them.
const TURN: u32 = 1000;

/// A blob's lines.
#[derive(Debug)]
pub(super) struct Lines {
    blobs: Arc<dyn Blobs>,
    blob: Blob,
    at: u64,
    end: u64,
    /// What was read and is no line yet.
    rest: BytesMut,
    /// How much of `rest` has no line end.
    searched: usize,
    number: u32,
    longest: usize,
    most: u32,
}

/// Why there is no next line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LineError {
    /// Line `number` is longer than lines may be.
    TooLong {
        /// The line, from 1.
        number: u32,
    },
    /// There are more lines than may be, blank ones counted.
    TooMany,
    /// The blob is gone, or shorter.
    Gone,
    /// The store of blobs fails.
    Blob(BlobError),
}

impl Lines {
    /// The lines of the first `end` bytes of a blob, each of at most `longest`.
    pub(super) fn new(blobs: Arc<dyn Blobs>, blob: Blob, end: u64, longest: usize) -> Self {
        Self {
            blobs,
            blob,
            at: 0,
            end,
            rest: BytesMut::new(),
            searched: 0,
            number: 0,
            longest,
            most: u32::MAX,
        }
    }

    /// These, where there are at most so many, blank ones counted.
    pub(super) fn at_most(mut self, lines: u32) -> Self {
        self.most = lines;
        self
    }

    /// The next line that is not blank, without its end, and its number, from 1; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<(u32, Bytes)>, LineError> {
        loop {
            let Some(line) = self.any().await? else {
                return Ok(None);
            };
            if self.number >= self.most {
                return Err(LineError::TooMany);
            }
            self.number = self.number.saturating_add(1);
            if self.number.is_multiple_of(TURN) {
                yield_now().await;
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some((self.number, line)));
            }
        }
    }

    async fn any(&mut self) -> Result<Option<Bytes>, LineError> {
        loop {
            let unsearched = self.rest.get(self.searched..).unwrap_or_default();
            if let Some(found) = memchr::memchr(b'\n', unsearched) {
                let line = self.rest.split_to(self.searched + found + 1).freeze();
                self.searched = 0;
                return self.bounded(line.slice(..line.len() - 1)).map(Some);
            }
            self.searched = self.rest.len();
            if self.searched > self.longest {
                return Err(self.too_long());
            }
            if self.at >= self.end {
                let last = self.rest.split().freeze();
                self.searched = 0;
                return match last.is_empty() {
                    true => Ok(None),
                    false => self.bounded(last).map(Some),
                };
            }
            self.read().await?;
        }
    }

    fn bounded(&self, line: Bytes) -> Result<Bytes, LineError> {
        if line.len() > self.longest {
            return Err(self.too_long());
        }
        Ok(line)
    }

    const fn too_long(&self) -> LineError {
        LineError::TooLong {
            number: self.number.saturating_add(1),
        }
    }

    async fn read(&mut self) -> Result<(), LineError> {
        let to = self.end.min(self.at.saturating_add(STEP));
        let part = self.blobs.read(&self.blob, self.at..to).await;
        let part = part.map_err(LineError::Blob)?;
        let part = part
            .filter(|part| !part.is_empty())
            .ok_or(LineError::Gone)?;
        self.at = self
            .at
            .saturating_add(u64::try_from(part.len()).unwrap_or(STEP));
        self.rest.extend_from_slice(&part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::store::blobs::embedded::Embedded;
    use crate::store::blobs::{Container, When};

    /// A blob of this text, as long as the folder is there.
    async fn opened(text: &str, longest: usize) -> (tempfile::TempDir, Lines) {
        let folder = tempfile::tempdir().unwrap();
        let blobs: Arc<dyn Blobs> = Arc::new(Embedded::open(folder.path()).unwrap());
        let blob = Blob::new(Container::Files, "x");
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        let length = u64::try_from(bytes.len()).unwrap();
        blobs.put(&blob, bytes, When::Always).await.unwrap();
        (folder, Lines::new(blobs, blob, length, longest))
    }

    async fn lines(text: &str, longest: usize) -> (Vec<(u32, String)>, Option<LineError>) {
        let (_folder, lines) = opened(text, longest).await;
        all(lines).await
    }

    async fn all(mut lines: Lines) -> (Vec<(u32, String)>, Option<LineError>) {
        let mut found = Vec::new();
        loop {
            match lines.next().await {
                Ok(Some((number, line))) => {
                    found.push((number, String::from_utf8(line.to_vec()).unwrap()));
                }
                Ok(None) => return (found, None),
                Err(error) => return (found, Some(error)),
            }
        }
    }

    #[tokio::test]
    async fn lines_are_numbered_and_blank_ones_passed_over() {
        let (found, error) = lines("a\n\n \r\nb\r\nc", 10).await;
        let expected = [(1, "a"), (4, "b\r"), (5, "c")].map(|(n, text)| (n, text.to_owned()));
        assert_eq!((found, error), (expected.to_vec(), None));
        assert_eq!(lines("", 10).await, (Vec::new(), None));
    }

    #[tokio::test]
    async fn a_line_over_several_parts_is_whole_and_one_that_is_too_long_an_error() {
        let long = "x".repeat((5 << 20) / 2);
        let (found, error) = lines(&format!("{long}\n{long}"), 3 << 20).await;
        assert!(error.is_none() && found.iter().all(|(_, line)| *line == long) && found.len() == 2);
        let (found, error) = lines(&format!("a\n{long}"), 1 << 20).await;
        assert_eq!(found.len(), 1);
        assert_eq!(error, Some(LineError::TooLong { number: 2 }));
        let (_, error) = lines("123456", 5).await;
        assert_eq!(error, Some(LineError::TooLong { number: 1 }));
    }

    #[tokio::test]
    async fn blank_lines_count_among_the_most_that_may_be() {
        for (text, found, error) in [
            ("a\n\nb\n", 2, None),
            ("a\n\n\nb\n", 1, Some(LineError::TooMany)),
            ("\n\n\n\n", 0, Some(LineError::TooMany)),
            ("\n\n\n", 0, None),
        ] {
            let (_folder, lines) = opened(text, 10).await;
            let (lines, ended) = all(lines.at_most(3)).await;
            assert_eq!((lines.len(), ended), (found, error), "{text:?}");
        }
    }

    #[tokio::test]
    async fn others_have_their_turn_among_blank_lines() {
        let text = format!("a{}", "\n".repeat(10_001));
        let (_folder, mut lines) = opened(&text, 10).await;
        // The first line is there once the blob is read, all of it.
        assert!(lines.next().await.unwrap().is_some());
        let turns = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&turns);
        tokio::spawn(async move {
            loop {
                count.fetch_add(1, Ordering::SeqCst);
                yield_now().await;
            }
        });
        assert_eq!(lines.next().await, Ok(None));
        let turns = turns.load(Ordering::SeqCst);
        assert!(turns >= 9, "{turns} turns");
    }
}
