//! Answers that are kept.

use super::*;
use crate::gateway::cache::Scope;

const OPEN: &str = "[auth]\nmode = \"off\"\n[[backend]]\nname = \"a\"\nendpoint = \"http://127.0.0.1:1\"\n[[backend.deployment]]\nname = \"m\"\nkind = \"payg\"\n";

#[test]
fn nothing_is_kept_unless_it_is_said_of_all_apps_or_of_one() {
    let app = "[[app]]\nname = \"x\"\n";
    let config = parse(&format!("{OPEN}{app}")).unwrap();
    assert_eq!(config.cache.rules(config.apps[0].cache), None);
    assert_eq!(config.cache.rules(None), None);
    let one = parse(&format!("{OPEN}{app}cache = \"shared\"\n")).unwrap();
    assert!(one.cache.rules(None).is_none());
    let rules = one.cache.rules(one.apps[0].cache).unwrap();
    assert_eq!((rules.scope, rules.ttl_ms), (Scope::Shared, 3_600_000));
    let all = format!("{OPEN}[cache]\nscope = \"app\"\n{app}cache = \"off\"\n");
    let all = parse(&all).unwrap();
    assert!(all.cache.rules(None).is_some());
    assert_eq!(all.cache.rules(all.apps[0].cache), None);
}

#[test]
fn answers_are_shared_only_where_there_is_a_place_for_them() {
    let shared = format!("{OPEN}[cache]\nblobs = true\n");
    let found = mistakes(&shared);
    assert!(
        found.len() == 1 && found[0].contains("[storage] blobs"),
        "{found:?}"
    );
    let config = parse(&format!("{shared}[storage]\nblobs = \"embedded:x\"\n")).unwrap();
    assert!(config.cache.blobs);
}

#[test]
fn an_answer_that_would_find_no_room_is_said_beforehand() {
    let found = mistakes(&format!("{OPEN}[cache]\nmemory_mb = 1\n"));
    assert!(
        found.len() == 1 && found[0].contains("half of memory_mb"),
        "{found:?}"
    );
    let small = format!("{OPEN}[cache]\nmemory_mb = 1\nmax_answer_kb = 100\n");
    assert_eq!(parse(&small).unwrap().cache.max_answer(), 102_400);
}
