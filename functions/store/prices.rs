//! The rows of table `prices`: what the last look at Azure's list prices proposed.
//!
//! Partition `check` has row `latest`: when that was, and what was found; and a row a day,
//! `2026-11-23`, by which the first instance of the day takes the look. The proposals of a day are in
//! partition `proposals|2026-11-23`; those of the look before are deleted.

use super::{Change, Fields, Key, Pages, Range, Store, StoreError, Table, Write, bounds, daily};
use crate::gateway::price::retail::Proposal;
use crate::gateway::time::Timestamp;

const CHECK: &str = "check";
const LATEST: &str = "latest";

/// Characters of a field that names of unlisted meters may take: half of what one holds.
const MAX_UNLISTED: usize = 16_000;

/// What the last look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    /// When it was, RFC 3339.
    pub at: String,
    /// How many prices were read.
    pub read: u64,
    /// Names of meters that the list has no model for, with `, ` between.
    pub unlisted: String,
    /// The changes that it proposes.
    pub proposals: Vec<Proposal>,
}

/// Takes the look of a day, such as `2026-11-23`. `false` where another instance has.
///
/// # Errors
/// When the store fails.
pub async fn take(store: &dyn Store, day: &str) -> Result<bool, StoreError> {
    daily::take(store, Table::Prices, CHECK, day).await
}

/// Gives the look of a day back, so that it is taken again.
///
/// # Errors
/// When the store fails.
pub async fn give_back(store: &dyn Store, day: &str) -> Result<(), StoreError> {
    daily::give_back(store, Table::Prices, CHECK, day).await
}

/// Keeps what a look found, in the place of what the one before did.
///
/// # Errors
/// When the store fails.
pub async fn keep(
    store: &dyn Store,
    at: Timestamp,
    read: u64,
    unlisted: &str,
    proposals: &[Proposal],
) -> Result<(), StoreError> {
    let before = latest_day(store).await?;
    let day = at.day();
    // Another look of the same day would leave its rows among these.
    delete(store, &partition(&day)).await?;
    let rows = proposals.iter().enumerate().map(|(index, proposal)| Write {
        row: format!("{index:05}"),
        change: Change::Upsert(Fields::new().text(
            "proposal",
            serde_json::to_string(proposal).unwrap_or_default(),
        )),
    });
    let rows: Vec<Write> = rows.collect();
    for part in rows.chunks(bounds::MAX_WRITES) {
        store
            .write(Table::Prices, &partition(&day), part.to_vec())
            .await?;
    }
    let unlisted: String = unlisted.chars().take(MAX_UNLISTED).collect();
    let latest = Fields::new()
        .text("day", &*day)
        .text("at", at.rfc3339())
        .number("read", read)
        .text("unlisted", unlisted);
    let latest = Write {
        row: LATEST.to_owned(),
        change: Change::Upsert(latest),
    };
    store.write(Table::Prices, CHECK, vec![latest]).await?;
    match before.filter(|before| *before != day) {
        Some(before) => delete(store, &partition(&before)).await,
        None => Ok(()),
    }
}

/// What the last look found; `None` where there was none.
///
/// # Errors
/// When the store fails, or a row is none of this program.
pub async fn latest(store: &dyn Store) -> Result<Option<Latest>, StoreError> {
    let Some(row) = store.get(Table::Prices, &latest_key()).await? else {
        return Ok(None);
    };
    let range = Range::of(partition(row.fields.get_text("day")), "");
    let rows = Pages::new(store, Table::Prices, range).rest().await?;
    let proposals = rows.iter().map(|row| {
        let read = serde_json::from_str(row.fields.get_text("proposal"));
        read.map_err(|_| StoreError::Damaged(format!("{} of {}", row.key.row, row.key.partition)))
    });
    Ok(Some(Latest {
        at: row.fields.get_text("at").to_owned(),
        read: row.fields.get_number("read"),
        unlisted: row.fields.get_text("unlisted").to_owned(),
        proposals: proposals.collect::<Result<_, _>>()?,
    }))
}

async fn latest_day(store: &dyn Store) -> Result<Option<String>, StoreError> {
    let row = store.get(Table::Prices, &latest_key()).await?;
    Ok(row.map(|row| row.fields.get_text("day").to_owned()))
}

fn latest_key() -> Key {
    Key {
        partition: CHECK.to_owned(),
        row: LATEST.to_owned(),
    }
}

fn partition(day: &str) -> String {
    format!("proposals|{day}")
}

async fn delete(store: &dyn Store, partition: &str) -> Result<(), StoreError> {
    let rows = Pages::new(store, Table::Prices, Range::of(partition, ""))
        .rest()
        .await?;
    for part in rows.chunks(bounds::MAX_WRITES) {
        let writes = part.iter().map(|row| Write {
            row: row.key.row.clone(),
            change: Change::Delete(None),
        });
        store
            .write(Table::Prices, partition, writes.collect())
            .await?;
    }
    Ok(())
}
