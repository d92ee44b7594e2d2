//! What docs/security.md says is tested, is.

use std::path::Path;

/// The file that a statement means, and the test in it.
fn place(name: &str) -> Option<(Vec<String>, &str)> {
    let (file, test) = name.split_once("::")?;
    let files = match file.split_once('/') {
        Some(("it", rest)) => vec![format!("tests/it/{rest}.rs")],
        Some(("infra", rest)) => vec![format!("tests/infra/{rest}.py")],
        _ => ["", "/mod", "/tests"]
            .map(|end| format!("functions/{file}{end}.rs"))
            .to_vec(),
    };
    Some((files, test))
}

#[test]
fn each_test_that_the_page_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/security.md")).unwrap();
    let mut named = 0;
    for (files, test) in page.split('`').skip(1).step_by(2).filter_map(place) {
        if test == "test" {
            continue;
        }
        let texts = files
            .iter()
            .filter_map(|file| std::fs::read_to_string(root.join(file)).ok());
        let starts = [format!("fn {test}()"), format!("def {test}(")];
        let is_there = texts
            .into_iter()
            .any(|text| starts.iter().any(|start| text.contains(start)));
        assert!(is_there, "{files:?} has no test {test}");
        named += 1;
    }
    assert!(named > 40, "only {named} tests were found in the page");
}
