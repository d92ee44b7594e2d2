//! Where traces and metrics are sent.

use super::*;

const OPEN: &str = "[auth]\nmode = \"off\"\n[[backend]]\nname = \"a\"\nendpoint = \"http://127.0.0.1:1\"\n[[backend.deployment]]\nname = \"m\"\nkind = \"payg\"\n";

#[test]
fn nothing_is_sent_unless_a_section_says_where_to() {
    assert!(parse(OPEN).unwrap().telemetry.is_none());
    let found = mistakes(&format!("{OPEN}[telemetry]\nsample_percent = 5\n"));
    assert!(
        found.len() == 1 && found[0].contains("`endpoint`"),
        "{found:?}"
    );
    let sent = format!("{OPEN}[telemetry]\nendpoint = \"http://127.0.0.1:4318\"\n");
    let telemetry = parse(&sent).unwrap().telemetry.unwrap();
    assert_eq!(telemetry.metrics_interval_seconds, 60);
    assert_eq!(telemetry.sample_percent, 100);
}

#[test]
fn every_mistake_is_said_and_no_value() {
    let wrong = "[telemetry]\nendpoint = \"grpc://canary:4317\"\nheaders = \"authorization=canary,canary\"\nresource_attributes = \"canary\"\nsample_percent = 101\n";
    let found = mistakes(&format!("{OPEN}{wrong}"));
    assert_eq!(found.len(), 4, "{found:?}");
    for key in [
        "endpoint",
        "headers",
        "resource_attributes",
        "sample_percent",
    ] {
        let named = |one: &String| one.contains(&format!("telemetry.{key}"));
        assert!(found.iter().any(named), "{key}: {found:?}");
    }
    assert!(!found.concat().contains("canary"), "{found:?}");
    let odd = "[telemetry]\nendpoint = \"http://127.0.0.1:1\"\nheaders = \"x=1,a b=canary\"\n";
    let found = mistakes(&format!("{OPEN}{odd}"));
    assert!(
        found.len() == 1 && found[0].contains("header 2"),
        "{found:?}"
    );
}

#[test]
fn headers_are_not_printed() {
    let sent =
        format!("{OPEN}[telemetry]\nendpoint = \"http://127.0.0.1:1\"\nheaders = \"x=canary\"\n");
    let config = parse(&sent).unwrap();
    assert!(!format!("{config:?}").contains("canary"));
}
