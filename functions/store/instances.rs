//! The rows of table `instances`: what each instance says of the limits that it shares.

use std::collections::BTreeMap;

use super::pages::delete_if_there;
use super::{Change, Fields, Key, Pages, Range, Store, StoreError, Table, Write, encode_key};
use crate::gateway::share::Row;
use crate::gateway::time::Timestamp;

/// The partition of the instances that share apps' limits.
const PARTITION: &str = "relay";

/// The key of an instance's row.
pub fn key(instance: &str) -> Key {
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

/// The claims are JSON, in as many fields as they need.
fn fields(row: &Row) -> Result<Fields, StoreError> {
    let limits = serde_json::to_string(&row.limits);
    let limits = limits.map_err(|error| StoreError::Refused(error.to_string()))?;
    Ok(Fields::new()
        .text("instance", &*row.instance)
        .text("seen", row.seen.rfc3339())
        .number("seen_ms", row.seen.unix_ms())
        .number("next_ms", row.next_ms)
        .long_text("limits", &limits))
}

fn from_fields(fields: &Fields) -> Result<Row, StoreError> {
    let limits: BTreeMap<_, _> = serde_json::from_str(&fields.get_long_text("limits"))
        .map_err(|error| StoreError::Damaged(format!("an instance's limits: {error}")))?;
    Ok(Row {
        instance: fields.get_text("instance").to_owned(),
        seen: Timestamp::from_unix_ms(fields.get_number("seen_ms")),
        next_ms: fields.get_number("next_ms"),
        limits,
    })
}

#[cfg(test)]
mod tests {
    use super::super::bounds;
    use super::*;
    use crate::gateway::limit::Share;
    use crate::gateway::share::Claim;

    #[test]
    fn a_row_comes_back_as_it_went_in_however_many_limits_it_has() {
        for limits in [0, 1, 500] {
            let claim = Claim {
                wanted: Share::of_millionths(999_999),
                held: Share::of_millionths(123_456),
                used: [Share::of_millionths(654_321); 12],
            };
            let named = |i| (format!("app-{i}/модель-{i}"), claim);
            let row = Row {
                instance: "a".into(),
                seen: Timestamp::from_unix_ms(1_700_000_000_123),
                next_ms: 2000,
                limits: (0..limits).map(named).collect(),
            };
            let fields = fields(&row).unwrap();
            assert_eq!(from_fields(&fields), Ok(row));
            let write = Write {
                row: "a".into(),
                change: Change::Upsert(fields),
            };
            assert_eq!(bounds::transaction("relay", &[write]), Ok(()));
        }
    }

    #[test]
    fn a_damaged_row_is_said_to_be_one() {
        let damaged = Fields::new()
            .text("instance", "a")
            .text("limits_0", "{\"a\":");
        assert!(matches!(from_fields(&damaged), Err(StoreError::Damaged(_))));
    }
}
