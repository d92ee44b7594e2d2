//! docs/errors.md has all codes that the gateway answers.

use std::path::Path;

/// The texts that stand behind `=> "` in a file, but for the kinds of errors.
fn codes(text: &str) -> Vec<&str> {
    let parts = text.split("=> \"").skip(1);
    let words = parts.filter_map(|part| part.split_once('"').map(|(word, _)| word));
    let is_code = |word: &&str| {
        word.contains('_')
            && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            && !word.ends_with("_error")
    };
    words.filter(is_code).collect()
}

#[test]
fn each_code_that_a_call_can_be_answered_is_on_the_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    let page = read("docs/errors.md");
    let mut found = 0;
    for file in ["functions/relay/error.rs", "functions/batches/error.rs"] {
        for code in codes(&read(file)) {
            assert!(page.contains(&format!("`{code}`")), "{file}: {code}");
            found += 1;
        }
    }
    assert!(found > 40, "{found}");
}
