//! Keys that Table Storage takes.

use std::fmt::Write;

/// What an encoded byte begins with. Not `%`, although it is usual: Table Storage decodes the path of
/// a URL twice, so that a row whose key holds `%` is not found by it ("PartitionKey or RowKey
/// containing the percent character causes some Windows Azure Tables APIs to fail", Windows Azure
/// Storage Team, 2012-05-28).
const ESCAPE: char = '=';

/// `text` as a part of a key: what Table Storage forbids in keys (`/`, `\`, `#`, `?` and control
/// characters; azure-facts, "Table Storage") or takes for something else (`%`), what this program
/// separates parts by (`|`) and quotes (`'`) stand as `=` and two hexadecimal digits a byte, and so
/// does `=` itself, so that different texts never become the same key.
pub fn encode_key(text: &str) -> String {
    let mut key = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '/' | '\\' | '#' | '?' | '%' | '|' | '\'' | ESCAPE) || c.is_control() {
            let mut utf8 = [0; 4];
            for byte in c.encode_utf8(&mut utf8).bytes() {
                // Writing to a String can't fail.
                let _ = write!(key, "{ESCAPE}{byte:02X}");
            }
        } else {
            key.push(c);
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_keys_may_not_hold_is_encoded() {
        assert_eq!(encode_key("gpt-4o"), "gpt-4o");
        assert_eq!(
            encode_key("a/b\\c#d?e%f|g'h=i"),
            "a=2Fb=5Cc=23d=3Fe=25f=7Cg=27h=3Di"
        );
        assert_eq!(encode_key("\u{85}ü"), "=C2=85ü");
    }

    proptest! {
        #[test]
        fn different_texts_have_different_keys(a in ".{0,12}", b in ".{0,12}") {
            prop_assert_eq!(a == b, encode_key(&a) == encode_key(&b));
        }

        #[test]
        fn a_key_holds_nothing_forbidden(text in "(?s).{1,40}") {
            prop_assert!(super::super::bounds::key(&encode_key(&text)).is_ok());
        }
    }
}
