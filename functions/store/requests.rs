//! The rows of table `requests`: what became of each batch message and asynchronous call.
//!
//! A row is made when a request is accepted over HTTP, or when a worker takes a message on. Whoever
//! works on it holds it for a while (`lease`) and renews that: two deliveries of a message never
//! call a backend at the same time. The answer stands in the row before it is sent, so that
//! nobody pays twice for a message that is delivered again.

use sha2::{Digest, Sha256};

use super::blobs::{Blob, BlobError, Blobs, Container};
use super::pages::{delete_as_read, is_expired};
use super::{
    Change, Etag, Fields, Key, Pages, Range, Row, Store, StoreError, Table, Write, bounds,
    encode_key,
};
use crate::gateway::id;
use crate::gateway::time::Timestamp;

/// Longest name in a row's key that stands there as it is, characters.
const MAX_PLAIN: usize = 200;

/// Partitions of an app: a partition of Table Storage takes 2,000 writes a second (azure-facts,
/// "Table Storage").
const PARTITION_DIGITS: usize = 2;

/// Largest answer that stands in its row, bytes: a row may have 1 MiB in UTF-16.
pub const MAX_INLINE: usize = 256 * 1024;

/// Characters of one field's part of an answer: whatever they are, within a field's bounds.
const PART: usize = bounds::MAX_TEXT / 2;

/// What has become of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for its turn.
    Queued,
    /// Somebody works on it.
    Running {
        /// Who.
        holder: String,
        /// Until when that is to be believed.
        until: Timestamp,
    },
    /// It has its answer, which may not have been sent.
    Answered(Kept),
    /// The answer was sent too.
    Replied(Kept),
    /// It was called off before it started.
    Cancelled,
}

impl State {
    /// The word for it in rows and answers.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running { .. } => "running",
            Self::Answered(_) => "answered",
            Self::Replied(_) => "replied",
            Self::Cancelled => "cancelled",
        }
    }
}

/// An answer as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Its status; 0 where there is none but an error.
    pub status: u16,
    /// The id of the call that brought it.
    pub request_id: String,
    /// Its body, or the error's message.
    pub body: Body,
    /// The error's code; empty where there is an answer.
    pub code: String,
    /// The message that was given up with it; `None` where it is the answer.
    pub dead: Option<Dead>,
}

/// A message that was given up: the broker dead-letters it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Its number in the queue.
    pub sequence: u64,
    /// When.
    pub at: Timestamp,
}

/// Where an answer's body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// In the row.
    Inline(String),
    /// In a blob of container `replies`.
    Blob {
        /// Its name.
        name: String,
        /// Its size, bytes.
        bytes: usize,
    },
}

impl Default for Body {
    fn default() -> Self {
        Self::Inline(String::new())
    }
}

/// A request's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What has become of it.
    pub state: State,
    /// The sender's own name for it.
    pub custom_id: String,
    /// When it came.
    pub created: Timestamp,
    /// When the row is of no use any more.
    pub expires: Timestamp,
}

/// A row that was read, and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What stands in it.
    pub request: Request,
    /// Its version.
    pub etag: Etag,
}

/// The key of a request of an app's. Another app that names the same id has another one.
pub fn key(app: &str, id: &str) -> Key {
    let digits = digest(id);
    let part: String = digits.chars().take(PARTITION_DIGITS).collect();
    let plain = encode_key(id);
    Key {
        partition: format!("{}|{part}", encode_key(app)),
        row: if plain.chars().count() <= MAX_PLAIN {
            plain
        } else {
            digits
        },
    }
}

/// The blob of a request's answer, where its row can't hold it.
pub fn answer_blob(app: &str, id: &str) -> Blob {
    let name = format!("{}/{}/answer", digest(app), digest(id));
    Blob::new(Container::Replies, name)
}

/// The blob of a request, where a message can't hold it.
pub fn request_blob(app: &str, id: &str) -> Blob {
    let name = format!("{}/{}/request", digest(app), digest(id));
    Blob::new(Container::Replies, name)
}

/// A text that names the request in places where an id can't stand.
pub fn digest(id: &str) -> String {
    let hash = Sha256::digest(id.as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a request's row.
///
/// # Errors
/// When the store fails, or the row is damaged.
pub async fn read(store: &dyn Store, key: &Key) -> Result<Option<Found>, StoreError> {
    let row = store.get(Table::Requests, key).await?;
    row.as_ref().map(found).transpose()
}

/// In which case a row is written.
#[derive(Clone, Copy, Debug)]
pub enum When<'a> {
    /// Where there is none.
    New,
    /// In the place of this version.
    Same(&'a Etag),
    /// Whatever is there: for whoever holds the request.
    Mine,
}

/// Writes a request's row.
///
/// # Errors
/// [`StoreError::Exists`] or [`StoreError::Changed`] where somebody else was there in between.
pub async fn write(
    store: &dyn Store,
    key: &Key,
    request: &Request,
    when: When<'_>,
) -> Result<(), StoreError> {
    let fields = fields(request);
    let change = match when {
        When::New => Change::Insert(fields),
        When::Same(etag) => Change::Replace(fields, etag.clone()),
        When::Mine => Change::Upsert(fields),
    };
    let write = Write {
        row: key.row.clone(),
        change,
    };
    store
        .write(Table::Requests, &key.partition, vec![write])
        .await
}

/// Deletes the rows that have expired at `now`, and what lies of them in `blobs`; how many.
///
/// # Errors
/// When the store fails; what is left is deleted the next time.
pub async fn sweep(
    store: &dyn Store,
    blobs: Option<&dyn Blobs>,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let mut pages = Pages::new(store, Table::Requests, Range::all());
    let mut deleted = 0;
    while let Some(rows) = pages.next().await? {
        for row in rows.iter().filter(|row| is_expired(row, now)) {
            if delete_blobs(row, blobs).await {
                deleted += usize::from(delete_as_read(store, Table::Requests, row).await?);
            }
        }
    }
    Ok(deleted)
}

/// Deletes the blobs of a row's answer and of its request; `false` where that has to be tried again.
async fn delete_blobs(row: &Row, blobs: Option<&dyn Blobs>) -> bool {
    let Some(blobs) = blobs else { return true };
    let name = row.fields.get_text("blob");
    let answer = (!name.is_empty()).then(|| Blob::new(Container::Replies, name));
    for blob in [answer, request_of(&row.key)].into_iter().flatten() {
        // One that is not there is as good as deleted.
        if let Err(BlobError::Unavailable(_)) = blobs.delete(&blob).await {
            return false;
        }
    }
    true
}

/// The blob in which a row's request may lie. Only calls have one: their ids are this program's, those
/// of messages are not.
fn request_of(key: &Key) -> Option<Blob> {
    id::number_of(&key.row)?;
    let (app, _) = key.partition.rsplit_once('|')?;
    Some(request_blob(&decoded(app)?, &key.row))
}

/// The text that [`encode_key`] made this of; `None` where it made none such.
fn decoded(part: &str) -> Option<String> {
    let mut pieces = part.split('=');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

fn fields(request: &Request) -> Fields {
    let fields = Fields::new()
        .text("state", request.state.as_str())
        .text("custom_id", &*request.custom_id)
        .text("created", request.created.rfc3339())
        .number("created_ms", request.created.unix_ms())
        .number("expires_ms", request.expires.unix_ms());
    match &request.state {
        State::Queued | State::Cancelled => fields,
        State::Running { holder, until } => fields
            .text("holder", &**holder)
            .number("until_ms", until.unix_ms()),
        State::Answered(kept) | State::Replied(kept) => with_answer(fields, kept),
    }
}

fn with_answer(fields: Fields, kept: &Kept) -> Fields {
    let mut fields = fields
        .number("status", kept.status.into())
        .text("request_id", &*kept.request_id)
        .text("code", &*kept.code);
    if let Some(dead) = kept.dead {
        fields = fields
            .number("dead", dead.sequence)
            .number("dead_ms", dead.at.unix_ms());
    }
    match &kept.body {
        Body::Blob { name, bytes } => fields
            .text("blob", &**name)
            .number("blob_bytes", u64::try_from(*bytes).unwrap_or(u64::MAX)),
        Body::Inline(text) => {
            let letters: Vec<char> = text.chars().collect();
            let parts = letters.chunks(PART).enumerate();
            parts.fold(fields, |fields, (i, part)| {
                fields.text(&part_name(i), part.iter().collect::<String>())
            })
        }
    }
}

fn part_name(i: usize) -> String {
    format!("body_{i}")
}

fn found(row: &Row) -> Result<Found, StoreError> {
    let fields = &row.fields;
    let moment = |name: &str| Timestamp::from_unix_ms(fields.get_number(name));
    let state = match fields.get_text("state") {
        "queued" => State::Queued,
        "cancelled" => State::Cancelled,
        "running" => State::Running {
            holder: fields.get_text("holder").to_owned(),
            until: moment("until_ms"),
        },
        "answered" => State::Answered(kept(fields)),
        "replied" => State::Replied(kept(fields)),
        other => {
            return Err(StoreError::Damaged(format!(
                "a request's state is {other:?}"
            )));
        }
    };
    Ok(Found {
        request: Request {
            state,
            custom_id: fields.get_text("custom_id").to_owned(),
            created: moment("created_ms"),
            expires: moment("expires_ms"),
        },
        etag: row.etag.clone(),
    })
}

fn kept(fields: &Fields) -> Kept {
    let number = |name: &str| {
        let there = fields.iter().any(|(one, _)| one == name);
        there.then(|| fields.get_number(name))
    };
    let body = match number("blob_bytes") {
        Some(bytes) => Body::Blob {
            name: fields.get_text("blob").to_owned(),
            bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
        },
        None => {
            let parts = (0..).map(|i| fields.get_text(&part_name(i)).to_owned());
            Body::Inline(parts.take_while(|part| !part.is_empty()).collect())
        }
    };
    Kept {
        status: u16::try_from(fields.get_number("status")).unwrap_or(0),
        request_id: fields.get_text("request_id").to_owned(),
        body,
        code: fields.get_text("code").to_owned(),
        dead: number("dead").map(|sequence| Dead {
            sequence,
            at: Timestamp::from_unix_ms(fields.get_number("dead_ms")),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::blobs;
    use super::super::embedded::Embedded;
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_000);

    fn request(state: State) -> Request {
        Request {
            state,
            custom_id: "c/1".into(),
            created: NOW,
            expires: NOW.plus_ms(1000),
        }
    }

    #[tokio::test]
    async fn a_request_comes_back_as_it_went_in_whatever_its_state() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        let answer = |body: Body| Kept {
            status: 200,
            request_id: "01J".into(),
            body,
            code: String::new(),
            dead: None,
        };
        let states = [
            State::Queued,
            State::Running {
                holder: "h".into(),
                until: NOW,
            },
            State::Answered(answer(Body::Inline("x".repeat(100_000)))),
            State::Answered(Kept {
                dead: Some(Dead {
                    sequence: 0,
                    at: NOW,
                }),
                code: "broken".into(),
                ..Kept::default()
            }),
            State::Replied(answer(Body::Blob {
                name: "a/b/answer".into(),
                bytes: 7_000_000,
            })),
            State::Replied(answer(Body::Inline("😀\"\n".repeat(20_000)))),
            State::Cancelled,
        ];
        for (i, state) in states.into_iter().enumerate() {
            let key = key("app/1", &format!("id-{i}"));
            write(&store, &key, &request(state.clone()), When::New)
                .await
                .unwrap();
            let read = read(&store, &key).await.unwrap().unwrap();
            assert_eq!(read.request, request(state));
        }
    }

    #[tokio::test]
    async fn the_largest_inline_answer_fits_its_row() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        let body = "é".repeat(MAX_INLINE / 2);
        let state = State::Answered(Kept {
            body: Body::Inline(body),
            ..Kept::default()
        });
        write(&store, &key("a", "b"), &request(state), When::New)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn only_one_of_two_takes_a_request() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        let key = key("a", "b");
        write(&store, &key, &request(State::Queued), When::New)
            .await
            .unwrap();
        let again = write(&store, &key, &request(State::Queued), When::New).await;
        assert_eq!(again, Err(StoreError::Exists { index: 0 }));
        let seen = read(&store, &key).await.unwrap().unwrap().etag;
        write(&store, &key, &request(State::Cancelled), When::Same(&seen))
            .await
            .unwrap();
        let late = write(&store, &key, &request(State::Queued), When::Same(&seen)).await;
        assert_eq!(late, Err(StoreError::Changed { index: 0 }));
    }

    #[tokio::test]
    async fn expired_requests_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        write(&store, &key("a", "b"), &request(State::Queued), When::New)
            .await
            .unwrap();
        assert_eq!(sweep(&store, None, NOW).await, Ok(0));
        assert_eq!(sweep(&store, None, NOW.plus_ms(1000)).await, Ok(1));
        assert_eq!(read(&store, &key("a", "b")).await, Ok(None));
    }

    const CALL: &str = "01KAS8J5T0ABCDEFGHJKMNPQRS";

    #[tokio::test]
    async fn both_blobs_of_an_expired_call_are_swept_and_of_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        let blobs = blobs::embedded::Embedded::open(folder.path()).unwrap();
        for app in ["team/α=1|x", "other"] {
            for blob in [request_blob(app, CALL), answer_blob(app, CALL)] {
                let put = blobs.put(&blob, "x".into(), blobs::When::Always);
                put.await.unwrap();
            }
        }
        let app = "team/α=1|x";
        let answered = State::Replied(Kept {
            body: Body::Blob {
                name: answer_blob(app, CALL).name().to_owned(),
                bytes: 1,
            },
            ..Kept::default()
        });
        for (id, state) in [
            (CALL, answered),
            ("m-1~0123456789abcdef", State::Cancelled),
            ("01KAS8J5T0ABCDEFGHJKMNPQRT", State::Cancelled),
        ] {
            let key = key(app, id);
            write(&store, &key, &request(state), When::New)
                .await
                .unwrap();
        }
        let swept = sweep(&store, Some(&blobs), NOW.plus_ms(1000)).await;
        assert_eq!(swept, Ok(3), "those without blobs too");
        for (app, left) in [(app, None), ("other", Some(1))] {
            for blob in [request_blob(app, CALL), answer_blob(app, CALL)] {
                assert_eq!(blobs.length(&blob).await, Ok(left), "{blob}");
            }
        }
    }

    #[test]
    fn a_row_s_key_says_whose_request_it_is() {
        for app in ["nightly", "a/b\\c#d?e%f|g'h=i", "\u{85}ü", ""] {
            assert_eq!(decoded(&encode_key(app)).as_deref(), Some(app));
            assert_eq!(request_of(&key(app, CALL)), Some(request_blob(app, CALL)));
            assert_eq!(request_of(&key(app, "m-1~0123456789abcdef")), None);
        }
        for odd in ["=", "=é", "=ZZ", "a=4", "=FF"] {
            assert_eq!(decoded(odd), None, "{odd}");
        }
    }

    #[test]
    fn keys_fit_whatever_the_id() {
        for id in ["a", "a/b?c#d", &"?".repeat(128), &"é".repeat(300)] {
            let key = key("app", id);
            assert!(
                bounds::key(&key.row).is_ok() && bounds::key(&key.partition).is_ok(),
                "{id}"
            );
        }
        assert_ne!(key("a", "x").partition, key("b", "x").partition);
    }
}
