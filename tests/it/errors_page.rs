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

/// The texts that stand beside a status in a file: `StatusCode::GONE, "cancelled"`, and
/// `"batch_expired" => StatusCode::GATEWAY_TIMEOUT`.
fn codes_beside_statuses(text: &str) -> Vec<&str> {
    let parts: Vec<&str> = text.split("StatusCode::").collect();
    let arms = parts.iter().filter_map(|part| {
        let arm = part.strip_suffix("\" => ")?;
        arm.rsplit_once('"').map(|(_, word)| word)
    });
    let arguments = parts.iter().skip(1).filter_map(|part| {
        let (_, rest) = part.split_once(',')?;
        let text = rest.trim_start().strip_prefix('"')?;
        text.split_once('"').map(|(word, _)| word)
    });
    arms.chain(arguments).collect()
}

fn read(file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(root.join(file)).unwrap()
}

#[test]
fn each_code_of_alerts_requests_and_the_console_is_on_the_page() {
    let page = read("docs/errors.md");
    for (file, least) in [
        ("functions/alert/mod.rs", 4),
        ("functions/serve/requests.rs", 9),
        ("functions/console/api.rs", 2),
        ("functions/console/chargeback.rs", 3),
    ] {
        let text = read(file);
        let codes = codes_beside_statuses(&text);
        for code in &codes {
            assert!(page.contains(&format!("`{code}`")), "{file}: {code}");
        }
        assert!(codes.len() >= least, "{file}: {codes:?}");
    }
}

#[test]
fn each_code_that_a_call_can_be_answered_is_on_the_page() {
    let page = read("docs/errors.md");
    let mut found = 0;
    for file in [
        "functions/relay/error.rs",
        "functions/batches/error.rs",
        "functions/gateway/limit.rs",
    ] {
        for code in codes(&read(file)) {
            assert!(page.contains(&format!("`{code}`")), "{file}: {code}");
            found += 1;
        }
    }
    assert!(found > 40, "{found}");
}
