//! The rows of table `console` that have a day's bill by app, summed up: partition `day|` and a month,
//! row the UTC day. What a day comes to is a text of the console's own.

use super::super::{Change, Fields, Key, Store, StoreError, Table, Write};
use crate::gateway::time::Timestamp;

/// A day, summed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayRow {
    /// When it was made.
    pub made: Timestamp,
    /// By what prices.
    pub terms: String,
    /// What it comes to.
    pub text: String,
}

fn key(day: &str) -> Key {
    let month = day.get(..7).unwrap_or(day);
    Key {
        partition: format!("day|{month}"),
        row: day.to_owned(),
    }
}

/// Writes a day such as `2026-11-23`, in the place of what was written of it before.
///
/// # Errors
/// When the store fails, or the day is too large for a row: it has some 5,000 apps then.
pub async fn write(store: &dyn Store, day: &str, row: &DayRow) -> Result<(), StoreError> {
    let Key {
        partition,
        row: name,
    } = key(day);
    let fields = Fields::new()
        .number("made_ms", row.made.unix_ms())
        .long_text("terms", &row.terms)
        .long_text("day", &row.text);
    let writes = vec![Write {
        row: name,
        change: Change::Upsert(fields),
    }];
    store.write(Table::Console, &partition, writes).await
}

/// A day, where it was written.
///
/// # Errors
/// When the store fails.
pub async fn read(store: &dyn Store, day: &str) -> Result<Option<DayRow>, StoreError> {
    let row = store.get(Table::Console, &key(day)).await?;
    Ok(row.map(|row| DayRow {
        made: Timestamp::from_unix_ms(row.fields.get_number("made_ms")),
        terms: row.fields.get_long_text("terms"),
        text: row.fields.get_long_text("day"),
    }))
}
