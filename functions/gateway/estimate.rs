//! Tokens where the answer reports none: an estimate, and marked as one.

use memchr::memchr2;

/// Bytes that one token stands for. OpenAI's rule of thumb: about four characters of English.
const BYTES_PER_TOKEN: u64 = 4;

/// Tokens of an image in a prompt: a 1024 x 1024 one at high detail in gpt-4o, 85 + 4 * 170
/// (OpenAI, "Images and vision", calculating costs).
const IMAGE_TOKENS: u64 = 765;

/// Tokens of a prompt, from its JSON: its strings by length, each embedded image or file as one
/// image. Looks at every byte.
pub fn input_tokens(json: &[u8]) -> u64 {
    let mut text_bytes = 0u64;
    let mut images = 0u64;
    let mut rest = json;
    while let Some(start) = memchr::memchr(b'"', rest) {
        let Some(string) = rest.get(start + 1..) else {
            break;
        };
        let end = string_end(string);
        if string.starts_with(b"data:") {
            images += 1;
        } else {
            text_bytes = text_bytes.saturating_add(length(end));
        }
        rest = string.get(end + 1..).unwrap_or_default();
    }
    tokens_of_bytes(text_bytes).saturating_add(images.saturating_mul(IMAGE_TOKENS))
}

/// Tokens of `bytes` bytes of text, rounded up.
pub const fn tokens_of_bytes(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN)
}

fn length(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Where the string ends whose opening quote came before `bytes`.
fn string_end(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(offset) = bytes.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        let found = at + offset;
        if bytes.get(found) == Some(&b'"') {
            return found;
        }
        at = found + 2;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_counts_by_its_length() {
        assert_eq!(input_tokens(br#"["abcd","ef\"g",5]"#), 3);
        assert_eq!(tokens_of_bytes(9), 3);
    }

    #[test]
    fn an_embedded_image_counts_as_an_image() {
        let image = format!(
            r#"{{"url":"data:image/png;base64,{}"}}"#,
            "A".repeat(40_000)
        );
        assert_eq!(input_tokens(image.as_bytes()), 1 + IMAGE_TOKENS);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let most = tokens_of_bytes(bytes.len() as u64) + IMAGE_TOKENS * (bytes.len() as u64);
            prop_assert!(input_tokens(&bytes) <= most);
        }
    }
}
