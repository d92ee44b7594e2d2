//! The rows of table `affinity`: which backend owns a stored response, file or thread.

use super::pages::{delete_as_read, is_expired};
use super::{Change, Fields, Key, Pages, Range, Row, Store, StoreError, Table, Write, encode_key};
use crate::gateway::time::Timestamp;

/// Characters of an id that name its partition. Ids begin with their kind and, most of them, with
/// when they were made: old rows lie together.
const PARTITION_CHARACTERS: usize = 12;

/// Who owns something that later calls name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The backend that has it.
    pub backend: String,
    /// The app that made it.
    pub app: String,
    /// When the row is of no use any more.
    pub expires: Timestamp,
}

/// The key of an id's row.
pub fn key(id: &str) -> Key {
    let start: String = id.chars().take(PARTITION_CHARACTERS).collect();
    Key {
        partition: encode_key(&start),
        row: encode_key(id),
    }
}

/// The write that remembers an owner.
pub fn write(id: &str, owned: &Owned) -> Write {
    let fields = Fields::new()
        .text("backend", &*owned.backend)
        .text("app", &*owned.app)
        .number("expires_ms", owned.expires.unix_ms())
        .text("expires", owned.expires.rfc3339());
    Write {
        row: key(id).row,
        change: Change::Upsert(fields),
    }
}

/// The write that forgets an owner. It fails with [`StoreError::Changed`] where there is none.
pub fn forget(id: &str) -> Write {
    Write {
        row: key(id).row,
        change: Change::Delete(None),
    }
}

/// The owner that a row names.
pub fn owned(row: &Row) -> Owned {
    Owned {
        backend: row.fields.get_text("backend").to_owned(),
        app: row.fields.get_text("app").to_owned(),
        expires: Timestamp::from_unix_ms(row.fields.get_number("expires_ms")),
    }
}

/// Deletes the rows that have expired at `now`; how many.
///
/// # Errors
/// When the store fails; what is left is deleted the next time.
pub async fn sweep(store: &dyn Store, now: Timestamp) -> Result<usize, StoreError> {
    let mut pages = Pages::new(store, Table::Affinity, Range::all());
    let mut deleted = 0;
    while let Some(rows) = pages.next().await? {
        for row in rows.iter().filter(|row| is_expired(row, now)) {
            deleted += usize::from(delete_as_read(store, Table::Affinity, row).await?);
        }
    }
    Ok(deleted)
}
