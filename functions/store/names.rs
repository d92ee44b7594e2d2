//! Applications' display names, as they were last asked for: partition `names` of table `chargeback`, a
//! row an application's id.

use std::sync::Arc;

use super::{Change, Fields, Pages, Range, Row, Store, StoreError, Table, Write, encode_key};
use crate::gateway::time::Timestamp;

/// No app's partition: those have `|` and a day.
const PARTITION: &str = "names";

/// Most characters of a name that are kept, as many as Entra allows.
const MAX_NAME: usize = 256;

/// What is known of an application's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its id, as calls name the app.
    pub app: Arc<str>,
    /// Its name; `None` where it has none.
    pub name: Option<Arc<str>>,
    /// When it is asked for again.
    pub until: Timestamp,
}

/// All that is known.
///
/// # Errors
/// When the store fails.
pub async fn all(store: &dyn Store) -> Result<Vec<Known>, StoreError> {
    let range = Range::of(PARTITION, "");
    let rows = Pages::new(store, Table::Chargeback, range).rest().await?;
    Ok(rows.iter().map(known).collect())
}

/// Keeps what is known of a name, in place of what was.
///
/// # Errors
/// When the store fails.
pub async fn keep(store: &dyn Store, known: &Known) -> Result<(), StoreError> {
    let name = known.name.as_deref().unwrap_or_default();
    let fields = Fields::new()
        .text("app", &*known.app)
        .text("name", name.chars().take(MAX_NAME).collect::<String>())
        .number("until_ms", known.until.unix_ms());
    let write = Write {
        row: encode_key(&known.app),
        change: Change::Upsert(fields),
    };
    store.write(Table::Chargeback, PARTITION, vec![write]).await
}

fn known(row: &Row) -> Known {
    let name = row.fields.get_text("name");
    Known {
        app: row.fields.get_text("app").into(),
        name: (!name.is_empty()).then(|| name.into()),
        until: Timestamp::from_unix_ms(row.fields.get_number("until_ms")),
    }
}
