//! What Blob Storage refuses, and what a file system would, refused before either is asked
//! (Azure, "Naming and referencing containers, blobs, and metadata"; "Scalability and performance
//! targets for Blob storage").

use std::fmt::Write;
use std::ops::Range;

use super::BlobError;

/// Largest blob that is written whole, bytes. Azure takes 5,000 MiB; this bounds memory.
pub const MAX_WHOLE: usize = 128 << 20;

/// Largest block, append or range, bytes. Azure takes 4 MiB at once in an append in every version
/// of its API.
pub const MAX_PART: usize = 4 << 20;

/// Most blocks of a blob.
pub const MAX_BLOCKS: u32 = 50_000;

/// Most names of one page.
pub const MAX_PAGE: usize = 1000;

/// Longest name: Azure's.
const MAX_NAME: usize = 1024;

/// Longest part of a name: file systems have 255 bytes, of which the embedded store uses some itself.
const MAX_NAME_PART: usize = 200;

/// What an encoded byte begins with, as in keys of tables.
const ESCAPE: char = '=';

/// `text` as a part of a blob's name: what is no letter, digit, `-`, `_` or a dot within stands as
/// `=` and two hexadecimal digits a byte, and so does `=` itself, so that different texts never
/// become the same part. An empty text stays empty, which no part may be.
pub fn encode_part(text: &str) -> String {
    let mut part = String::with_capacity(text.len());
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        // No part begins with a dot (`..`) or ends with one, which Azure takes away.
        let dot_within = byte == b'.' && at > 0 && at < last;
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || dot_within {
            part.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(part, "{ESCAPE}{byte:02X}");
        }
    }
    part
}

/// Checks a blob's name.
///
/// # Errors
/// When it is empty, too long, or has a part that is none.
pub fn name(name: &str) -> Result<(), BlobError> {
    if name.len() > MAX_NAME {
        return refuse(format!("a blob's name has more than {MAX_NAME} bytes"));
    }
    match name.split('/').find(|part| !is_part(part)) {
        Some(part) => refuse(format!("{part:?} can't be a part of a blob's name")),
        None => Ok(()),
    }
}

/// Checks what the names of a list begin with: whole parts, then any beginning of one.
///
/// # Errors
/// When no name can begin so.
pub fn prefix(prefix: &str) -> Result<(), BlobError> {
    match prefix.rsplit_once('/') {
        Some((folder, "")) => name(folder),
        _ if prefix.is_empty() => Ok(()),
        _ => name(prefix.trim_end_matches('.')),
    }
}

fn is_part(part: &str) -> bool {
    let taken =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'=');
    (1..=MAX_NAME_PART).contains(&part.len())
        && part.bytes().all(taken)
        && !part.starts_with('.')
        && !part.ends_with('.')
}

/// Checks the size of a whole blob.
///
/// # Errors
/// When it is too large.
pub fn whole(bytes: usize) -> Result<(), BlobError> {
    at_most("a blob that is written whole", bytes, MAX_WHOLE)
}

/// Checks the size of a block or an append.
///
/// # Errors
/// When it is empty or too large.
pub fn part(bytes: usize) -> Result<(), BlobError> {
    if bytes == 0 {
        return refuse("a part of a blob has at least one byte");
    }
    at_most("a part of a blob", bytes, MAX_PART)
}

/// Checks the number of a block.
///
/// # Errors
/// When no blob has so many.
pub fn block(number: u32) -> Result<(), BlobError> {
    if number < MAX_BLOCKS {
        return Ok(());
    }
    refuse(format!("a blob has at most {MAX_BLOCKS} blocks"))
}

/// Checks a range. How many bytes it has.
///
/// # Errors
/// When it runs backwards or is too large.
pub fn range(range: &Range<u64>) -> Result<usize, BlobError> {
    let bytes = range.end.checked_sub(range.start);
    let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
    let Some(bytes) = bytes else {
        return refuse("a range ends before it begins");
    };
    at_most("a range", bytes, MAX_PART).map(|()| bytes)
}

fn at_most(what: &str, bytes: usize, most: usize) -> Result<(), BlobError> {
    if bytes <= most {
        return Ok(());
    }
    refuse(format!("{what} has at most {most} bytes, not {bytes}"))
}

fn refuse<T>(why: impl Into<String>) -> Result<T, BlobError> {
    Err(BlobError::Refused(why.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_would_leave_their_place_are_refused() {
        for good in ["a", "a/b.json", "app=20one/2026-11-25/01K.json"] {
            assert_eq!(name(good), Ok(()), "{good}");
        }
        let long = "x".repeat(MAX_NAME_PART + 1);
        let many = "a/".repeat(600) + "a";
        for bad in [
            "", "/a", "a/", "a//b", "..", "a/../b", ".hidden", "a.", "a b", "a\\b", "a,b", "ü",
            "a?b", "a\n", &long, &many,
        ] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_prefix_may_end_within_a_part() {
        for good in ["", "a", "a/", "a/b", "a/b."] {
            assert_eq!(prefix(good), Ok(()), "{good}");
        }
        for bad in ["/", "../", "a//", "a b"] {
            assert!(prefix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_their_bounds() {
        assert_eq!(range(&(3..10)), Ok(7));
        let most = u64::try_from(MAX_PART).unwrap();
        assert!(range(&(0..most)).is_ok() && range(&(0..most + 1)).is_err());
        let backwards = Range { start: 2, end: 1 };
        assert!(range(&backwards).is_err());
        assert!(part(0).is_err() && part(1).is_ok() && part(MAX_PART + 1).is_err());
        assert!(whole(0).is_ok() && whole(MAX_WHOLE + 1).is_err());
        assert!(block(MAX_BLOCKS - 1).is_ok() && block(MAX_BLOCKS).is_err());
    }

    proptest! {
        #[test]
        fn different_texts_become_different_parts(a in ".{1,12}", b in ".{1,12}") {
            prop_assert_eq!(a == b, encode_part(&a) == encode_part(&b));
        }

        #[test]
        fn whatever_is_encoded_is_a_name(text in "(?s).{1,16}") {
            prop_assert_eq!(name(&encode_part(&text)), Ok(()));
        }
    }
}
