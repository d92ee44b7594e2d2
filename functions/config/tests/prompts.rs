//! Apps whose prompts are logged.

use super::*;

const OPEN: &str = "[auth]\nmode = \"off\"\n[[backend]]\nname = \"a\"\nendpoint = \"http://127.0.0.1:1\"\n[[backend.deployment]]\nname = \"m\"\nkind = \"payg\"\n";

#[test]
fn nothing_is_logged_unless_an_app_says_so_and_there_is_a_place() {
    let app = "[[app]]\nname = \"x\"\n";
    let config = parse(&format!("{OPEN}{app}")).unwrap();
    assert!(!config.apps[0].log_prompts);
    let logged = format!("{OPEN}{app}log_prompts = true\n");
    let found = mistakes(&logged);
    assert!(
        found.len() == 1 && found[0].contains("[storage] blobs"),
        "{found:?}"
    );
    let config = parse(&format!("{logged}[storage]\nblobs = \"embedded:x\"\n")).unwrap();
    assert!(config.apps[0].log_prompts);
}

#[test]
fn a_pattern_that_is_none_is_said_with_its_place() {
    let found = mistakes(&format!("{OPEN}[prompts]\nredact = ['a', '(']\n"));
    assert!(
        found.len() == 1 && found[0].contains("prompts.redact[1]") && found[0].contains("unclosed"),
        "{found:?}"
    );
}
