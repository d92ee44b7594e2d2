//! The domain does no I/O and reads no clock.

use std::path::Path;

const BANNED: [&str; 12] = [
    "tokio",
    "hyper",
    "reqwest",
    "axum",
    "azure",
    "Instant",
    "SystemTime",
    "now_utc",
    "now_local",
    "std::net",
    "std::fs",
    "std::env",
];

#[test]
fn the_domain_names_no_io_and_no_clock() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("functions/gateway");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 10, "the domain was not found");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let found = offences(&text);
        assert!(found.is_empty(), "{}: {found:?}", file.display());
    }
}

#[test]
fn an_offence_is_found() {
    assert_eq!(offences("use tokio::net; // fine"), ["tokio"]);
    assert_eq!(offences("let t = std::time::Instant::now();"), ["Instant"]);
    assert!(offences("// tokio in a comment\nlet x = \"axum\";").is_empty());
}

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// Banned names outside comments and strings.
fn offences(text: &str) -> Vec<&'static str> {
    let code: String = text.lines().map(code_of).collect::<Vec<_>>().join("\n");
    BANNED
        .into_iter()
        .filter(|name| code.contains(name))
        .collect()
}

fn code_of(line: &str) -> String {
    let mut code = String::new();
    for (i, part) in line.split('"').enumerate() {
        if i % 2 == 1 {
            continue;
        }
        match part.split_once("//") {
            Some((before, _)) => {
                code.push_str(before);
                break;
            }
            None => code.push_str(part),
        }
    }
    code
}
