//! The rows of tables `batchfiles` and `batches`: the files and batches of each app, the newest first.
//!
//! A batch that has not ended has a second row, in a partition of its own: by these it is found, and
//! one process at a time takes it on, for as long as it renews its lease.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Change, Etag, Fields, Key, Range, Row, Store, StoreError, Table, Write, encode_key};
use crate::gateway::time::Timestamp;

/// The partition of batches that have not ended. No app's: what separates parts is encoded in those.
const ACTIVE: &str = "active|";

/// A record as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Read<T> {
    /// What stands in it.
    pub record: T,
    /// Its row's version.
    pub etag: Etag,
}

fn key(app: &str, row: &str) -> Key {
    Key {
        partition: encode_key(app),
        row: row.to_owned(),
    }
}

fn fields(record: &impl Serialize) -> Result<Fields, StoreError> {
    let text = serde_json::to_string(record).map_err(|e| StoreError::Refused(e.to_string()))?;
    Ok(Fields::new().text("record", text))
}

fn read<T: DeserializeOwned>(row: &Row) -> Result<Read<T>, StoreError> {
    let record = serde_json::from_str(row.fields.get_text("record"));
    let record = record.map_err(|e| StoreError::Damaged(format!("row {}: {e}", row.key.row)))?;
    Ok(Read {
        record,
        etag: row.etag.clone(),
    })
}

/// The record of a row of an app's.
///
/// # Errors
/// Those of [`Store::get`], and where the row is no such record.
pub async fn get<T: DeserializeOwned>(
    store: &dyn Store,
    table: Table,
    app: &str,
    row: &str,
) -> Result<Option<Read<T>>, StoreError> {
    let row = store.get(table, &key(app, row)).await?;
    row.as_ref().map(read).transpose()
}

/// Writes a record, in the place of the version that was read where there is one.
///
/// # Errors
/// Those of [`Store::write`].
pub async fn put(
    store: &dyn Store,
    table: Table,
    app: &str,
    row: &str,
    record: &impl Serialize,
    seen: Option<Etag>,
) -> Result<(), StoreError> {
    let fields = fields(record)?;
    let change = match seen {
        Some(etag) => Change::Replace(fields, etag),
        None => Change::Upsert(fields),
    };
    write(store, table, &key(app, row), change).await
}

/// Deletes a row of an app's; that there is none is no error.
///
/// # Errors
/// Those of [`Store::write`].
pub async fn delete(
    store: &dyn Store,
    table: Table,
    app: &str,
    row: &str,
) -> Result<(), StoreError> {
    gone(write(store, table, &key(app, row), Change::Delete(None)).await)
}

/// Some records of an app's, the newest first, after the row `after`, and where there are more the last
/// row's key.
///
/// # Errors
/// Those of [`Store::read`], and where a row is no such record.
pub async fn list<T: DeserializeOwned>(
    store: &dyn Store,
    table: Table,
    app: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<T>, Option<String>), StoreError> {
    let range = Range {
        after: after.map(|row| key(app, row)),
        limit,
        ..Range::of(encode_key(app), "")
    };
    let page = store.read(table, &range).await?;
    let records: Result<Vec<T>, StoreError> =
        page.rows.iter().map(|row| Ok(read(row)?.record)).collect();
    Ok((records?, page.next.map(|key| key.row)))
}

async fn write(
    store: &dyn Store,
    table: Table,
    key: &Key,
    change: Change,
) -> Result<(), StoreError> {
    let write = Write {
        row: key.row.clone(),
        change,
    };
    store.write(table, &key.partition, vec![write]).await
}

fn gone(done: Result<(), StoreError>) -> Result<(), StoreError> {
    match done {
        Err(StoreError::Changed { .. }) => Ok(()),
        other => other,
    }
}

/// A batch that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// Its app.
    pub app: String,
    /// Its id.
    pub id: String,
    /// When it was made.
    pub since: Timestamp,
    /// Who works on it; empty: nobody yet.
    pub holder: String,
    /// Until when that is to be believed.
    pub until: Timestamp,
}

impl Active {
    fn key(&self) -> Key {
        Key {
            partition: ACTIVE.to_owned(),
            row: encode_key(&self.id),
        }
    }

    fn fields(&self) -> Fields {
        Fields::new()
            .text("app", &*self.app)
            .text("id", &*self.id)
            .number("since", self.since.unix_ms())
            .text("holder", &*self.holder)
            .number("until", self.until.unix_ms())
    }

    fn read(row: &Row) -> Self {
        let moment = |name: &str| Timestamp::from_unix_ms(row.fields.get_number(name));
        Self {
            app: row.fields.get_text("app").to_owned(),
            id: row.fields.get_text("id").to_owned(),
            since: moment("since"),
            holder: row.fields.get_text("holder").to_owned(),
            until: moment("until"),
        }
    }
}

/// Notes that there is a batch to work on.
///
/// # Errors
/// Those of [`Store::write`].
pub async fn activate(store: &dyn Store, active: &Active) -> Result<(), StoreError> {
    write(
        store,
        Table::Batches,
        &active.key(),
        Change::Upsert(active.fields()),
    )
    .await
}

/// Some batches that have not ended, the oldest first, after `after`.
///
/// # Errors
/// Those of [`Store::read`].
pub async fn active(
    store: &dyn Store,
    after: Option<Key>,
) -> Result<(Vec<(Active, Etag)>, Option<Key>), StoreError> {
    let range = Range {
        after,
        ..Range::of(ACTIVE, "")
    };
    let page = store.read(Table::Batches, &range).await?;
    let rows = page
        .rows
        .iter()
        .map(|row| (Active::read(row), row.etag.clone()));
    Ok((rows.collect(), page.next))
}

/// Takes a batch on, or holds it longer: `active` in the place of the version that was seen. The new
/// version; `None` where there was another one.
///
/// # Errors
/// Those of [`Store::write`] and [`Store::get`].
pub async fn take(
    store: &dyn Store,
    active: &Active,
    seen: Etag,
) -> Result<Option<Etag>, StoreError> {
    let key = active.key();
    match write(
        store,
        Table::Batches,
        &key,
        Change::Replace(active.fields(), seen),
    )
    .await
    {
        // What was written although its answer was lost is found by its holder.
        Ok(()) | Err(StoreError::Changed { .. }) => {}
        Err(error) => return Err(error),
    }
    let row = store.get(Table::Batches, &key).await?;
    let own = row.filter(|row| Active::read(row) == *active);
    Ok(own.map(|row| row.etag))
}

/// Notes that there is nothing to work on any more.
///
/// # Errors
/// Those of [`Store::write`].
pub async fn retire(store: &dyn Store, active: &Active) -> Result<(), StoreError> {
    gone(write(store, Table::Batches, &active.key(), Change::Delete(None)).await)
}
