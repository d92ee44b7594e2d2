//! A store in memory, with the embedded one's conditions.

use std::collections::BTreeMap;
use std::sync::Mutex;

use spillway::store::{
    Answer, Change, Etag, Fields, Key, Page, Range, Row, Store, StoreError, Table, Write,
};

type Rows = BTreeMap<(&'static str, String, String), (u64, Fields)>;

/// A store that forgets all when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    rows: Mutex<(Rows, u64)>,
}

impl Memory {
    fn change(&self, table: Table, partition: &str, writes: Vec<Write>) -> Result<(), StoreError> {
        let mut guard = self.rows.lock().unwrap();
        let (rows, version) = &mut *guard;
        let key = |row: &str| (table.name(), partition.to_owned(), row.to_owned());
        for (index, write) in writes.iter().enumerate() {
            let current = rows.get(&key(&write.row)).map(|(v, _)| Etag(v.to_string()));
            let holds = match &write.change {
                Change::Insert(_) if current.is_some() => {
                    return Err(StoreError::Exists { index });
                }
                Change::Insert(_) | Change::Upsert(_) => true,
                Change::Replace(_, etag) | Change::Delete(Some(etag)) => {
                    current.as_ref() == Some(etag)
                }
                Change::Delete(None) => current.is_some(),
            };
            if !holds {
                return Err(StoreError::Changed { index });
            }
        }
        for write in writes {
            *version += 1;
            match write.change {
                Change::Insert(f) | Change::Upsert(f) | Change::Replace(f, _) => {
                    rows.insert(key(&write.row), (*version, f));
                }
                Change::Delete(_) => drop(rows.remove(&key(&write.row))),
            }
        }
        Ok(())
    }
}

fn row((_, partition, row): &(&str, String, String), (version, fields): &(u64, Fields)) -> Row {
    Row {
        key: Key {
            partition: partition.clone(),
            row: row.clone(),
        },
        etag: Etag(version.to_string()),
        fields: fields.clone(),
    }
}

impl Store for Memory {
    fn get<'a>(&'a self, table: Table, key: &'a Key) -> Answer<'a, Option<Row>> {
        let rows = self.rows.lock().unwrap();
        let key = (table.name(), key.partition.clone(), key.row.clone());
        let found = rows.0.get(&key).map(|value| row(&key, value));
        Box::pin(async move { Ok(found) })
    }

    /// A whole table, on one page.
    fn read<'a>(&'a self, table: Table, _: &'a Range) -> Answer<'a, Page> {
        let rows = self.rows.lock().unwrap();
        let all = rows.0.iter().filter(|(key, _)| key.0 == table.name());
        let page = Page {
            rows: all.map(|(key, value)| row(key, value)).collect(),
            next: None,
        };
        Box::pin(async move { Ok(page) })
    }

    fn write<'a>(&'a self, table: Table, partition: &'a str, writes: Vec<Write>) -> Answer<'a, ()> {
        let done = self.change(table, partition, writes);
        Box::pin(async move { done })
    }
}
