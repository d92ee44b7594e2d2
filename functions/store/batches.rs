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

    /// Whether `other` is the same batch in the same hands, until whenever.
    fn is_same_holding(&self, other: &Self) -> bool {
        self.id == other.id && self.holder == other.holder
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

/// Takes a batch on, or holds it longer: `active` in the place of the version that was seen, or of one
/// that the same holder wrote. The new version; `None` where it is somebody else's, or gone.
///
/// # Errors
/// Those of [`Store::write`] and [`Store::get`]; it may have been written all the same.
pub async fn take(
    store: &dyn Store,
    active: &Active,
    seen: Etag,
) -> Result<Option<Etag>, StoreError> {
    let Some(row) = replace(store, active, seen).await? else {
        return Ok(None);
    };
    if Active::read(&row).until == active.until {
        return Ok(Some(row.etag));
    }
    // An earlier write of its holder, whose answer was lost: nobody else has taken it.
    let Some(row) = replace(store, active, row.etag).await? else {
        return Ok(None);
    };
    if Active::read(&row).until == active.until {
        return Ok(Some(row.etag));
    }
    Err(StoreError::Changed { index: 0 })
}

/// Writes `active` in the place of the version that was seen. The row as it is then, where it is its
/// holder's.
async fn replace(
    store: &dyn Store,
    active: &Active,
    seen: Etag,
) -> Result<Option<Row>, StoreError> {
    let key = active.key();
    let change = Change::Replace(active.fields(), seen);
    match write(store, Table::Batches, &key, change).await {
        // What was written although its answer was lost is found by its holder.
        Ok(()) | Err(StoreError::Changed { .. }) => {}
        Err(error) => return Err(error),
    }
    let row = store.get(Table::Batches, &key).await?;
    Ok(row.filter(|row| active.is_same_holding(&Active::read(row))))
}

/// Notes that there is nothing to work on any more.
///
/// # Errors
/// Those of [`Store::write`].
pub async fn retire(store: &dyn Store, active: &Active) -> Result<(), StoreError> {
    gone(write(store, Table::Batches, &active.key(), Change::Delete(None)).await)
}

#[cfg(test)]
mod tests {
    use super::super::embedded::Embedded;
    use super::*;

    fn held(holder: &str, until_ms: u64) -> Active {
        Active {
            app: "nightly".into(),
            id: "batch_spw1".into(),
            since: Timestamp::from_unix_ms(1),
            holder: holder.into(),
            until: Timestamp::from_unix_ms(until_ms),
        }
    }

    /// The row and its version.
    async fn row(store: &dyn Store) -> (Active, Etag) {
        active(store, None).await.unwrap().0.remove(0)
    }

    #[tokio::test]
    async fn a_lease_is_renewed_although_the_answer_to_its_last_renewal_was_lost() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        activate(&store, &held("", 0)).await.unwrap();
        let (_, seen) = row(&store).await;
        let first = take(&store, &held("a", 10), seen).await.unwrap().unwrap();
        // Its answer does not come: whoever renews next goes by the version before.
        take(&store, &held("a", 20), first.clone()).await.unwrap();
        let renewed = take(&store, &held("a", 30), first).await.unwrap();
        let (now, etag) = row(&store).await;
        assert_eq!((now, Some(etag.clone())), (held("a", 30), renewed));
        // The same write once more, its own answer lost.
        let again = take(&store, &held("a", 30), Etag("0".into())).await;
        assert_eq!(again, Ok(Some(etag)));
    }

    #[tokio::test]
    async fn a_batch_that_somebody_else_has_taken_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        activate(&store, &held("", 0)).await.unwrap();
        let (_, seen) = row(&store).await;
        let own = take(&store, &held("a", 10), seen.clone()).await.unwrap();
        let own = own.unwrap();
        assert_eq!(take(&store, &held("b", 15), seen).await, Ok(None));
        let others = take(&store, &held("b", 20), own.clone()).await.unwrap();
        assert!(others.is_some());
        assert_eq!(take(&store, &held("a", 30), own.clone()).await, Ok(None));
        assert_eq!(row(&store).await.0, held("b", 20));
        retire(&store, &held("b", 20)).await.unwrap();
        assert_eq!(take(&store, &held("a", 30), own).await, Ok(None));
    }
}
