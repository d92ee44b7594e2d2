//! How large a tree of values a JSON text would come to.
//!
//! A tree is many times as long as its text can be: `{"":0}` has six bytes, and some 600 as a map. So where one is
//! made of what callers or backends send, it is asked here first.

/// What the values of a text may cost of which a tree is made. The tree has some 40 MB at most then, and its texts.
const MOST: usize = 250_000;

/// What an object costs beside its members: a map has room for eleven of them, even where it has one.
const OBJECT: usize = 4;

/// Whether a text has so many values that no tree should be made of it. It need not be JSON.
pub(super) fn is_too_large(json: &[u8]) -> bool {
    // Nothing else comes to more than one value.
    let first = json.iter().find(|byte| !byte.is_ascii_whitespace());
    let is_of_many = matches!(first, Some(b'{' | b'['));
    // No byte of JSON costs two: `{},` has three, and costs five.
    is_of_many && json.len() >= MOST / 2 && cost(json) > MOST
}

/// What a text's values cost: one for each list and each comma that no string has in it, and more for each object.
/// Of a text that is no JSON it is right as far as a reader would come.
fn cost(json: &[u8]) -> usize {
    let (mut cost, mut in_string, mut is_escaped) = (0, false, false);
    for byte in json {
        match *byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = in_string,
            b'"' => in_string = !in_string,
            b'{' if !in_string => cost += OBJECT,
            b'[' | b',' if !in_string => cost += 1,
            _ => {}
        }
    }
    cost
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list_of(value: &str, count: usize) -> String {
        format!(" [{}0]", format!("{value},").repeat(count))
    }

    #[test]
    fn a_text_is_too_large_by_its_values() {
        for (value, most) in [("0", 249_999), (r#"{"":0}"#, 49_999), ("[[]]", 83_333)] {
            let (right, more) = (list_of(value, most), list_of(value, most + 1));
            assert!(!is_too_large(right.as_bytes()), "{value}");
            assert!(is_too_large(more.as_bytes()), "{value}");
        }
    }

    #[test]
    fn what_strings_have_in_them_is_no_value() {
        let text = format!(r#"{{"a":"{}"}}"#, r#"{[,\","#.repeat(200_000));
        assert!(!is_too_large(text.as_bytes()));
        let behind = format!("[\"\\\\\",{}]", list_of("0", 250_000));
        assert!(is_too_large(behind.as_bytes()));
    }

    #[test]
    fn what_is_no_list_and_no_object_comes_to_one_value() {
        for text in ["a,[{".repeat(1 << 20), String::new()] {
            assert!(!is_too_large(text.as_bytes()));
        }
    }
}
