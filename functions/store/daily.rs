//! What is done once a day among all instances: a row a day, which the first of them puts in.

use super::{Change, Fields, Store, StoreError, Table, Write};

/// Takes what is done on a day, such as `2026-11-23`. `false` where another instance has.
///
/// # Errors
/// When the store fails.
pub async fn take(
    store: &dyn Store,
    table: Table,
    partition: &str,
    day: &str,
) -> Result<bool, StoreError> {
    let taken = Write {
        row: day.to_owned(),
        change: Change::Insert(Fields::new().text("day", day)),
    };
    match store.write(table, partition, vec![taken]).await {
        Ok(()) => Ok(true),
        Err(StoreError::Exists { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives a day back, so that it is taken again.
///
/// # Errors
/// When the store fails.
pub async fn give_back(
    store: &dyn Store,
    table: Table,
    partition: &str,
    day: &str,
) -> Result<(), StoreError> {
    let row = day.to_owned();
    let change = Change::Delete(None);
    store
        .write(table, partition, vec![Write { row, change }])
        .await
}
