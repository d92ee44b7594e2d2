//! What Table Storage refuses, refused before it is asked (azure-facts, "Table Storage"; limits
//! of Azure's storage-tables-scale-targets).

use std::collections::HashSet;

use super::{Change, Field, Fields, Range, StoreError, Write};

/// Most writes of one transaction.
pub const MAX_WRITES: usize = 100;

/// Most bytes of one transaction; Azure's 4 MiB, less room for the batch's own lines.
pub const MAX_TRANSACTION: usize = 3 << 20;

/// Most rows of one page.
pub const MAX_PAGE: usize = 1000;

/// Longest key: 1 KiB in UTF-16, as Table Storage counts.
const MAX_KEY: usize = 512;

/// Longest text: 64 KiB in UTF-16.
pub const MAX_TEXT: usize = 32 * 1024;

/// Most fields of a row: 255 less the three that Table Storage has itself.
const MAX_FIELDS: usize = 252;

/// Largest row, bytes: 1 MiB, of which some is overhead.
const MAX_ROW: usize = 1_000_000;

/// Checks a partition's or row's key.
///
/// # Errors
/// When it is empty, too long or holds a character that keys may not.
pub fn key(key: &str) -> Result<(), StoreError> {
    // `%` is allowed, but rows are not found by it: see `encode_key`.
    let forbidden = |c: char| matches!(c, '/' | '\\' | '#' | '?' | '%') || c.is_control();
    if key.is_empty() {
        return refuse("a key is empty");
    }
    if key.encode_utf16().count() > MAX_KEY {
        return refuse(format!("a key has more than {MAX_KEY} characters"));
    }
    match key.chars().find(|c| forbidden(*c)) {
        Some(c) => refuse(format!("the key {key:?} holds {c:?}, which keys may not")),
        None => Ok(()),
    }
}

/// Checks a transaction: 1 to 100 writes, each row once, all within their bounds.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn transaction(partition: &str, writes: &[Write]) -> Result<(), StoreError> {
    key(partition)?;
    if writes.is_empty() || writes.len() > MAX_WRITES {
        return refuse(format!(
            "a transaction has 1 to {MAX_WRITES} writes, not {}",
            writes.len()
        ));
    }
    let mut rows = HashSet::new();
    let mut bytes = 0;
    for write in writes {
        key(&write.row)?;
        if !rows.insert(&write.row) {
            return refuse(format!("the row {:?} is written twice", write.row));
        }
        bytes += match &write.change {
            Change::Insert(fields) | Change::Upsert(fields) | Change::Replace(fields, _) => {
                weight(fields)?
            }
            Change::Delete(_) => 0,
        };
    }
    if bytes > MAX_TRANSACTION {
        return refuse(format!(
            "a transaction has at most {MAX_TRANSACTION} bytes, not {bytes}"
        ));
    }
    Ok(())
}

/// Checks a range.
///
/// # Errors
/// When the page's size is none of 1 to 1,000.
pub fn range(range: &Range) -> Result<(), StoreError> {
    if (1..=MAX_PAGE).contains(&range.limit) {
        return Ok(());
    }
    refuse(format!(
        "a page has 1 to {MAX_PAGE} rows, not {}",
        range.limit
    ))
}

/// What a row takes of a transaction, bytes: as Table Storage counts it or as it is sent, whichever is
/// more. A character beyond Latin is two bytes in the one and three in the other.
///
/// # Errors
/// Those of [`row`].
pub(super) fn weight(fields: &Fields) -> Result<usize, StoreError> {
    let sent = fields.iter().map(|(name, field)| {
        // Quotes, colon and comma, and the name and quotes of the type.
        name.len()
            + 32
            + match field {
                Field::Text(text) => text.bytes().map(sent_as).sum(),
                Field::Int(_) | Field::Bool(_) => 20,
            }
    });
    Ok(row(fields)?.max(sent.sum()))
}

/// Bytes that a byte of a text takes in JSON.
const fn sent_as(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..=0x1F => 6,
        _ => 1,
    }
}

/// A row's size in bytes, as Table Storage counts it, roughly.
///
/// # Errors
/// When one of its fields, or all of them, are beyond the bounds.
pub(super) fn row(fields: &Fields) -> Result<usize, StoreError> {
    if fields.len() > MAX_FIELDS {
        return refuse(format!(
            "a row has at most {MAX_FIELDS} fields, not {}",
            fields.len()
        ));
    }
    let mut bytes = 0;
    for (name, field) in fields.iter() {
        bytes += 2 * name.len() + 8;
        bytes += match field {
            Field::Text(text) => {
                let characters = text.encode_utf16().count();
                if characters > MAX_TEXT {
                    return refuse(format!(
                        "the field {name} has {characters} characters; {MAX_TEXT} is the most"
                    ));
                }
                2 * characters
            }
            Field::Int(_) | Field::Bool(_) => 8,
        };
    }
    if bytes > MAX_ROW {
        return refuse(format!("a row has at most {MAX_ROW} bytes, not {bytes}"));
    }
    Ok(bytes)
}

fn refuse<T>(why: impl Into<String>) -> Result<T, StoreError> {
    Err(StoreError::Refused(why.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(row: &str, fields: Fields) -> Write {
        Write {
            row: row.to_owned(),
            change: Change::Insert(fields),
        }
    }

    fn refused(partition: &str, writes: &[Write]) -> String {
        match transaction(partition, writes) {
            Err(StoreError::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_transaction_within_its_bounds_is_taken() {
        let writes: Vec<Write> = (0..100)
            .map(|i| insert(&i.to_string(), Fields::new().text("a", "b")))
            .collect();
        assert_eq!(transaction("p", &writes), Ok(()));
    }

    #[test]
    fn what_table_storage_refuses_is_refused_with_its_reason() {
        let a = || insert("a", Fields::new());
        assert!(refused("p", &[]).contains("1 to 100"));
        let many: Vec<Write> = (0..101)
            .map(|i| insert(&i.to_string(), Fields::new()))
            .collect();
        assert!(refused("p", &many).contains("not 101"));
        assert!(refused("p", &[a(), a()]).contains("twice"));
        assert!(refused("", &[a()]).contains("empty"));
        assert!(refused("p/q", &[a()]).contains("'/'"));
        assert!(refused("100%", &[a()]).contains("'%'"));
        assert!(refused("p", &[insert(&"k".repeat(513), Fields::new())]).contains("512"));
        let long = Fields::new().text("t", "x".repeat(MAX_TEXT + 1));
        assert!(refused("p", &[insert("a", long)]).contains("the field t"));
        let wide = (0..253).map(|i| (i.to_string(), Field::Int(1))).collect();
        assert!(refused("p", &[insert("a", wide)]).contains("252"));
        let large = (0..40)
            .map(|i| (i.to_string(), Field::Text("x".repeat(20_000))))
            .collect();
        assert!(refused("p", &[insert("a", large)]).contains("bytes"));
        let text = || Fields::new().text("t", "x".repeat(30_000));
        let heavy: Vec<Write> = (0..60).map(|i| insert(&i.to_string(), text())).collect();
        assert!(refused("p", &heavy).contains("3145728"));
    }

    #[test]
    fn a_page_has_a_size() {
        assert_eq!(range(&Range::all()), Ok(()));
        for limit in [0, 1001] {
            let odd = Range {
                limit,
                ..Range::all()
            };
            assert!(range(&odd).is_err());
        }
    }
}
