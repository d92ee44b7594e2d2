//! The rows of table `slots`: who holds which low-priority slot of a model, and who wants one.
//!
//! The partition is the model, the row key `slot|` and the slot's number, or `wish|` and an instance.

use super::pages::delete_if_there;
use super::{
    Change, Etag, Fields, Key, Pages, Range, Row, Store, StoreError, Table, Write, encode_key,
};
use crate::gateway::pacing::lease::{Board, Lease, Wish};
use crate::gateway::time::Timestamp;

/// What the keys of slots begin with.
const SLOT: &str = "slot|";

/// What the keys of wishes begin with.
const WISH: &str = "wish|";

/// A model's rows, and the versions of its slots.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// What stands in them.
    pub board: Board,
    etags: Vec<(u32, Etag)>,
}

impl Rows {
    /// The write that makes `holder` the holder of a slot until `expires`; it fails where the row
    /// has changed since it was read. An empty holder gives the slot back.
    pub fn lease(&self, slot: u32, holder: &str, expires: Timestamp) -> Write {
        let fields = Fields::new()
            .text("holder", holder)
            .number("expires_ms", expires.unix_ms())
            .text("expires", expires.rfc3339());
        let known = self.etags.iter().find(|(number, _)| *number == slot);
        Write {
            row: slot_key(slot),
            change: match known {
                Some((_, etag)) => Change::Replace(fields, etag.clone()),
                None => Change::Insert(fields),
            },
        }
    }
}

/// The write of an instance's wish.
pub fn wish(wish: &Wish) -> Write {
    let fields = Fields::new()
        .text("instance", &*wish.instance)
        .number("waiting", wish.waiting.into())
        .number("expires_ms", wish.expires.unix_ms());
    Write {
        row: wish_key(&wish.instance),
        change: Change::Upsert(fields),
    }
}

/// The rows of a model.
///
/// # Errors
/// When the store fails, or a row is damaged.
pub async fn read(store: &dyn Store, model: &str) -> Result<Rows, StoreError> {
    let mut pages = Pages::new(store, Table::Slots, Range::of(partition(model), ""));
    let mut rows = Rows::default();
    while let Some(page) = pages.next().await? {
        for row in page {
            rows.add(row)?;
        }
    }
    Ok(rows)
}

/// Makes all of `writes` to a model's rows, or none.
///
/// # Errors
/// When the store fails, or a row has changed since it was read.
pub async fn write(store: &dyn Store, model: &str, writes: Vec<Write>) -> Result<(), StoreError> {
    store.write(Table::Slots, &partition(model), writes).await
}

/// Deletes the wishes that ended before `before`, of instances that are gone.
///
/// # Errors
/// When the store fails.
pub async fn forget_wishes(
    store: &dyn Store,
    model: &str,
    board: &Board,
    before: Timestamp,
) -> Result<(), StoreError> {
    for wish in board.wishes.iter().filter(|wish| wish.expires < before) {
        let key = Key {
            partition: partition(model),
            row: wish_key(&wish.instance),
        };
        delete_if_there(store, Table::Slots, key).await?;
    }
    Ok(())
}

impl Rows {
    fn add(&mut self, row: Row) -> Result<(), StoreError> {
        let Row { key, etag, fields } = row;
        let expires = Timestamp::from_unix_ms(fields.get_number("expires_ms"));
        if let Some(number) = key.row.strip_prefix(SLOT) {
            let slot = number.parse().map_err(|_| damaged(&key))?;
            self.etags.push((slot, etag));
            self.board.leases.push(Lease {
                slot,
                holder: fields.get_text("holder").to_owned(),
                expires,
            });
        } else if key.row.starts_with(WISH) {
            self.board.wishes.push(Wish {
                instance: fields.get_text("instance").to_owned(),
                waiting: u32::try_from(fields.get_number("waiting")).unwrap_or(u32::MAX),
                expires,
            });
        }
        Ok(())
    }
}

fn damaged(key: &Key) -> StoreError {
    StoreError::Damaged(format!("{} is no slot's number", key.row))
}

fn partition(model: &str) -> String {
    encode_key(model)
}

/// Four digits, so that slots are read in their order.
fn slot_key(slot: u32) -> String {
    format!("{SLOT}{slot:04}")
}

fn wish_key(instance: &str) -> String {
    format!("{WISH}{}", encode_key(instance))
}
