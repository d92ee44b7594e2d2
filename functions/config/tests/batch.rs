//! The section `[batch]`.

use super::*;

const BATCH: &str = "\n[batch]\nnamespace = \"https://contoso.servicebus.windows.net\"\nqueue = \"batch\"\nreply_queues = [\"results\", \"other\"]\n";

fn found(lines: &str) -> Vec<String> {
    let all = mistakes(&format!("{GOOD}{lines}")).into_iter();
    all.map(|m| m.splitn(4, ':').last().unwrap().trim().to_owned())
        .collect()
}

#[test]
fn a_queue_and_where_replies_may_go_are_enough() {
    let config = parse(&format!("{GOOD}{BATCH}")).unwrap_or_else(|e| panic!("{e}"));
    let batch = config.batch.unwrap();
    assert_eq!(
        batch.namespace.to_string(),
        "https://contoso.servicebus.windows.net"
    );
    assert_eq!(batch.rules().reply_queues, ["results", "other"]);
    assert_eq!((batch.max_message(), batch.max_deliveries), (262_144, 10));
    assert_eq!(
        (batch.patience().hold_ms, batch.keep_ms()),
        (240_000, 172_800_000)
    );
    assert!(parse(GOOD).unwrap().batch.is_none());
    let local = BATCH.replace(
        "https://contoso.servicebus.windows.net",
        "http://127.0.0.1:5300",
    );
    assert!(parse(&format!("{GOOD}{local}")).is_ok());
}

#[test]
fn each_mistake_of_the_section_has_its_place() {
    let cases = [
        (
            "https://contoso.servicebus.windows.net",
            "https://contoso.servicebus.windows.net/batch",
            "batch.namespace: must be a URL such as https://NAME.servicebus.windows.net, without a path",
        ),
        (
            "https://contoso.servicebus.windows.net",
            "http://contoso.servicebus.windows.net",
            "batch.namespace: must be a URL such as https://NAME.servicebus.windows.net, without a path",
        ),
        (
            "\"other\"",
            "\"Batch\"",
            "batch.reply_queues[1]: is the queue that messages come in by: each reply would be taken for a request",
        ),
        (
            "\"results\", \"other\"",
            "",
            "batch.reply_queues: is empty: replies have to go somewhere",
        ),
        (
            "queue = \"batch\"",
            "queue = \"batch\"\nhold_ms = 500000",
            "batch.hold_ms: must be from 0 to 480000 ms, is 500000",
        ),
    ];
    for (from, to, expected) in cases {
        assert_eq!(found(&BATCH.replace(from, to)), [expected], "{to}");
    }
}

#[test]
fn batch_needs_a_store() {
    let without = GOOD.replace("[storage]\ntables = \"embedded:/data\"\n", "");
    let all = mistakes(&format!("{without}{BATCH}"));
    assert_eq!(all.len(), 1);
    assert!(all[0].contains("needs `tables` in [storage]"), "{all:?}");
}
