//! A range, page by page, and what sweeps do with the rows of it.

use super::{Change, Field, Key, Range, Row, Store, StoreError, Table, Write};
use crate::gateway::time::Timestamp;

/// Reads a range a page at a time, so that its size does not matter.
#[derive(Debug)]
pub struct Pages<'a> {
    store: &'a dyn Store,
    table: Table,
    /// `None` after the last page.
    range: Option<Range>,
}

impl<'a> Pages<'a> {
    /// The pages of a range; nothing is read yet.
    pub const fn new(store: &'a dyn Store, table: Table, range: Range) -> Self {
        Self {
            store,
            table,
            range: Some(range),
        }
    }

    /// The next page's rows; `None` after the last.
    ///
    /// # Errors
    /// When the store fails; the same page is read the next time.
    pub async fn next(&mut self) -> Result<Option<Vec<Row>>, StoreError> {
        let Some(range) = &mut self.range else {
            return Ok(None);
        };
        let page = self.store.read(self.table, range).await?;
        match page.next {
            Some(next) => range.after = Some(next),
            None => self.range = None,
        }
        Ok(Some(page.rows))
    }

    /// All rows that are left.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn rest(mut self) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        while let Some(page) = self.next().await? {
            rows.extend(page);
        }
        Ok(rows)
    }
}

/// Whether a row says that its time is over, in `expires_ms`. One that does not say when is not of this
/// version, and whose it is sweeps it.
pub(super) fn is_expired(row: &Row, now: Timestamp) -> bool {
    let says = matches!(row.fields.get("expires_ms"), Some(Field::Int(_)));
    says && row.fields.get_number("expires_ms") <= now.unix_ms()
}

/// Deletes a row as it was read; `false` where another instance has deleted or renewed it since.
///
/// # Errors
/// When the store fails.
pub(super) async fn delete_as_read(
    store: &dyn Store,
    table: Table,
    row: &Row,
) -> Result<bool, StoreError> {
    let delete = Write {
        row: row.key.row.clone(),
        change: Change::Delete(Some(row.etag.clone())),
    };
    match store.write(table, &row.key.partition, vec![delete]).await {
        Ok(()) => Ok(true),
        Err(StoreError::Changed { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Deletes a row whatever stands in it, if it is there.
///
/// # Errors
/// When the store fails.
pub(super) async fn delete_if_there(
    store: &dyn Store,
    table: Table,
    key: Key,
) -> Result<(), StoreError> {
    let delete = Write {
        row: key.row,
        change: Change::Delete(None),
    };
    match store.write(table, &key.partition, vec![delete]).await {
        // Another instance deleted it.
        Err(StoreError::Changed { .. }) => Ok(()),
        other => other,
    }
}
