//! What a later release leaves behind, when it is rolled back or runs beside this one: columns in the rows
//! that there are, kinds of rows beside them, and partitions of its own.

use std::collections::{BTreeSet, HashMap};

use spillway::gateway::pacing::window::{DeploymentId, Minute};
use spillway::gateway::time::Timestamp;
use spillway::store::{
    Change, Fields, Key, Row, Store, Table, Write, affinity, console, requests, utilization,
};

use super::kept::kept;
use super::{BILLED, RELEASES, all, bills_as_before, events, open, record, unpacked};

/// Years later: all that ever expires has.
const LATER: Timestamp = Timestamp::from_unix_ms(2_000_000_000_000);

/// What the keys of its partitions begin with, and of some of its rows.
pub(super) const LATER_KEY: &str = "later|";

fn later_columns() -> Fields {
    Fields::new()
        .text("later_text", "of the next release")
        .number("later_number", 7)
        .flag("later_flag", true)
}

/// Whether a partition has rows of several kinds, told by how their keys begin.
fn is_of_kinds(table: Table, partition: &str) -> bool {
    match table {
        Table::Chargeback => !partition.starts_with("index|"),
        Table::Utilization | Table::Slots => true,
        _ => false,
    }
}

/// Adds to a store what a later release would.
async fn later(store: &dyn Store) {
    for table in Table::ALL {
        let mut names = BTreeSet::from([format!("{LATER_KEY}x")]);
        for Row { key, fields, etag } in all(store, table).await {
            let change = Change::Replace(fields.with(later_columns()), etag);
            let write = Write {
                row: key.row,
                change,
            };
            store
                .write(table, &key.partition, vec![write])
                .await
                .unwrap();
            names.extend(is_of_kinds(table, &key.partition).then_some(key.partition));
        }
        for name in names {
            // Before, between and after the kinds that there are.
            let rows = ["aaa|", LATER_KEY, "q|", "t|", "zzz|"].map(|row| Write {
                row: row.to_owned(),
                change: Change::Insert(later_columns()),
            });
            store.write(table, &name, rows.into()).await.unwrap();
        }
    }
}

/// The rows that have the later release's columns, by table and key.
async fn marked(store: &dyn Store) -> HashMap<(&'static str, Key), Fields> {
    let mut marked = HashMap::new();
    for table in Table::ALL {
        for row in all(store, table).await {
            if row.fields.get_text("later_text") == "of the next release" {
                marked.insert((table.name(), row.key), row.fields);
            }
        }
    }
    marked
}

#[tokio::test]
async fn what_a_later_release_adds_is_in_nobodys_way() {
    for release in RELEASES {
        let folder = unpacked(release);
        let store = open(folder.path());
        let before = kept(store.as_ref()).await;
        later(store.as_ref()).await;
        assert_eq!(kept(store.as_ref()).await, before, "{release}");
        if BILLED.contains(&release) {
            drop(store);
            bills_as_before(release, &format!("embedded:{}", folder.path().display()));
        }
    }
}

#[tokio::test]
async fn what_a_later_release_adds_is_still_there_when_more_is_counted_and_swept() {
    let folder = unpacked("32b006d");
    let store = open(folder.path());
    later(store.as_ref()).await;
    let before = marked(store.as_ref()).await;
    let mut more = events();
    for event in &mut more {
        event.id = event.id.replacen("01K", "02K", 1);
    }
    assert_eq!(record(&store, &more).await.counted.len(), more.len());
    affinity::sweep(store.as_ref(), LATER).await.unwrap();
    requests::sweep(store.as_ref(), None, LATER).await.unwrap();
    let id = DeploymentId {
        backend: "simulated-ptu".into(),
        deployment: "gpt-4o".into(),
    };
    utilization::sweep(store.as_ref(), &id, Minute::of(LATER))
        .await
        .unwrap();
    utilization::hours::sweep(store.as_ref(), &id, LATER)
        .await
        .unwrap();
    console::sweep(store.as_ref(), LATER).await.unwrap();
    let after = marked(store.as_ref()).await;
    for ((table, key), _) in before {
        let is_own = !["aaa|", LATER_KEY, "q|", "t|", "zzz|"].contains(&&*key.row);
        // Owners, requests and minutes of its own are swept, whatever else stands in them.
        let is_swept = is_own && !table.starts_with("chargeback");
        assert!(
            is_swept || after.contains_key(&(table, key.clone())),
            "{table} {key:?}"
        );
    }
    let sums = after.iter().filter(|((table, key), fields)| {
        *table == "chargeback" && key.row.starts_with("sum|") && fields.get_number("calls") > 1
    });
    assert!(sums.clone().count() > 0, "sums that were added to");
    assert!(
        sums.into_iter()
            .all(|(_, fields)| fields.get_number("later_number") == 7)
    );
}
