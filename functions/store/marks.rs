//! The rows of table `instances` that say which deployments an instance finds full.

use super::pages::delete_if_there;
use super::{Change, Fields, Key, Pages, Range, Store, StoreError, Table, Write, encode_key};
use crate::gateway::marks::Row;
use crate::gateway::time::Timestamp;

/// The partition of the instances that share marks.
const PARTITION: &str = "marks";

fn key(instance: &str) -> Key {
    Key {
        partition: PARTITION.to_owned(),
        row: encode_key(instance),
    }
}

/// The rows of all instances.
///
/// # Errors
/// When the store fails, or a row is damaged.
pub async fn read(store: &dyn Store) -> Result<Vec<Row>, StoreError> {
    let rows = Pages::new(store, Table::Instances, Range::of(PARTITION, ""));
    let rows = rows.rest().await?;
    rows.iter().map(|row| from_fields(&row.fields)).collect()
}

/// Writes an instance's row.
///
/// # Errors
/// When the store fails.
pub async fn write(store: &dyn Store, row: &Row) -> Result<(), StoreError> {
    let write = Write {
        row: key(&row.instance).row,
        change: Change::Upsert(fields(row)?),
    };
    store.write(Table::Instances, PARTITION, vec![write]).await
}

/// Deletes an instance's row, if it is there.
///
/// # Errors
/// When the store fails.
pub async fn forget(store: &dyn Store, instance: &str) -> Result<(), StoreError> {
    delete_if_there(store, Table::Instances, key(instance)).await
}

/// The deployments are JSON, in as many fields as they need.
fn fields(row: &Row) -> Result<Fields, StoreError> {
    let full = serde_json::to_string(&row.full);
    let full = full.map_err(|error| StoreError::Refused(error.to_string()))?;
    Ok(Fields::new()
        .text("instance", &*row.instance)
        .text("written", row.written.rfc3339())
        .number("written_ms", row.written.unix_ms())
        .long_text("full", &full))
}

fn from_fields(fields: &Fields) -> Result<Row, StoreError> {
    let full = serde_json::from_str(&fields.get_long_text("full"))
        .map_err(|error| StoreError::Damaged(format!("an instance's full deployments: {error}")))?;
    Ok(Row {
        instance: fields.get_text("instance").to_owned(),
        written: Timestamp::from_unix_ms(fields.get_number("written_ms")),
        full,
    })
}

#[cfg(test)]
mod tests {
    use super::super::bounds;
    use super::*;
    use crate::gateway::marks::Full;

    #[test]
    fn a_row_comes_back_as_it_went_in_however_many_deployments_are_full() {
        for count in [0, 1, 500] {
            let full = |i| Full {
                backend: format!("backend-{i}").into(),
                deployment: "модель".into(),
                left_ms: i,
            };
            let row = Row {
                instance: "a".into(),
                written: Timestamp::from_unix_ms(1_700_000_000_123),
                full: (0..count).map(full).collect(),
            };
            let fields = fields(&row).unwrap();
            assert_eq!(from_fields(&fields), Ok(row));
            let write = Write {
                row: "a".into(),
                change: Change::Upsert(fields),
            };
            assert_eq!(bounds::transaction(PARTITION, &[write]), Ok(()));
        }
    }

    #[test]
    fn a_damaged_row_is_said_to_be_one() {
        let damaged = Fields::new().text("instance", "a").text("full_0", "[{");
        assert!(matches!(from_fields(&damaged), Err(StoreError::Damaged(_))));
    }
}
