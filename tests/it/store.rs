//! What every store does, whatever it keeps its rows in.

use std::sync::Arc;

use spillway::gateway::event::{Attempt, Kind, Tokens, UsageEvent};
use spillway::gateway::price::Charge;
use spillway::gateway::time::Timestamp;
use spillway::store::affinity::{self, Owned};
use spillway::store::embedded::Embedded;
use spillway::store::ledger::Ledger;
use spillway::store::{
    Change, Etag, Fields, Key, Page, Pages, Range, Row, Store, StoreError, Table, Write, chargeback,
};

const T: Table = Table::Affinity;

fn write(row: &str, change: Change) -> Write {
    let row = row.to_owned();
    Write { row, change }
}

fn number(n: u64) -> Fields {
    Fields::new().number("n", n)
}

fn key(partition: &str, row: &str) -> Key {
    Key {
        partition: partition.to_owned(),
        row: row.to_owned(),
    }
}

async fn get(store: &dyn Store, partition: &str, row: &str) -> Option<Row> {
    store.get(T, &key(partition, row)).await.unwrap()
}

async fn etag(store: &dyn Store, partition: &str, row: &str) -> Etag {
    get(store, partition, row).await.unwrap().etag
}

/// Runs every check on a new, empty store.
pub(crate) async fn check(shared: &Arc<dyn Store>) {
    let store = shared.as_ref();
    rows_are_read_as_they_were_written(store).await;
    each_write_keeps_its_condition(store).await;
    a_transaction_is_all_or_nothing(store).await;
    a_range_is_read_page_by_page_in_order(store).await;
    events_are_written_once(shared).await;
    owners_that_have_expired_are_deleted(store).await;
}

#[tokio::test]
async fn the_embedded_store_does_what_every_store_does() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
    check(&store).await;
}

async fn rows_are_read_as_they_were_written(store: &dyn Store) {
    let fields = Fields::new()
        .text("text", "ü 'quoted' \"twice\" \u{1F600}\n")
        .text("decimal", "0.00000010")
        .number("large", i64::MAX.unsigned_abs())
        .number("zero", 0)
        .flag("yes", true)
        .flag("no", false);
    let change = Change::Insert(fields.clone());
    store
        .write(T, "as written", vec![write("ü|x", change)])
        .await
        .unwrap();
    let row = get(store, "as written", "ü|x").await.unwrap();
    assert_eq!((row.key, row.fields), (key("as written", "ü|x"), fields));
    assert_eq!(get(store, "as written", "y").await, None);
    assert_eq!(get(store, "elsewhere", "ü|x").await, None);
}

async fn each_write_keeps_its_condition(store: &dyn Store) {
    let p = "conditions";
    let one = |row, change| store.write(T, p, vec![write(row, change)]);
    let changed = Err(StoreError::Changed { index: 0 });
    one("a", Change::Insert(number(1))).await.unwrap();
    assert_eq!(
        one("a", Change::Insert(number(2))).await,
        Err(StoreError::Exists { index: 0 })
    );
    let first = etag(store, p, "a").await;
    one("a", Change::Replace(number(3), first.clone()))
        .await
        .unwrap();
    assert_eq!(
        one("a", Change::Replace(number(4), first.clone())).await,
        changed
    );
    assert_eq!(one("a", Change::Delete(Some(first.clone()))).await, changed);
    assert_eq!(
        one("b", Change::Replace(number(4), first.clone())).await,
        changed
    );
    assert_eq!(one("b", Change::Delete(None)).await, changed);
    one("a", Change::Upsert(number(5))).await.unwrap();
    one("b", Change::Upsert(number(6))).await.unwrap();
    assert_eq!(
        get(store, p, "a").await.map(|row| row.fields),
        Some(number(5))
    );
    let last = etag(store, p, "a").await;
    one("a", Change::Delete(Some(last))).await.unwrap();
    one("b", Change::Delete(None)).await.unwrap();
    assert_eq!(get(store, p, "a").await, None);
    assert_eq!(get(store, p, "b").await, None);
}

async fn a_transaction_is_all_or_nothing(store: &dyn Store) {
    let p = "transactions";
    let insert = |row, n| write(row, Change::Insert(number(n)));
    store.write(T, p, vec![insert("b", 1)]).await.unwrap();
    let conflict = vec![insert("a", 2), insert("b", 2), insert("c", 2)];
    assert_eq!(
        store.write(T, p, conflict).await,
        Err(StoreError::Exists { index: 1 })
    );
    assert_eq!(get(store, p, "a").await, None);
    assert_eq!(get(store, p, "c").await, None);
    let stale = Etag("W/\"datetime'2020-01-01T00%3A00%3A00.0000000Z'\"".into());
    let late = vec![
        insert("a", 2),
        write("b", Change::Replace(number(9), stale)),
    ];
    assert_eq!(
        store.write(T, p, late).await,
        Err(StoreError::Changed { index: 1 })
    );
    assert_eq!(get(store, p, "a").await, None);
    let current = etag(store, p, "b").await;
    let mixed = vec![
        insert("a", 3),
        write("b", Change::Replace(number(3), current)),
        write("c", Change::Upsert(number(3))),
    ];
    store.write(T, p, mixed).await.unwrap();
    for row in ["a", "b", "c"] {
        let fields = get(store, p, row).await.map(|row| row.fields);
        assert_eq!(fields, Some(number(3)), "{row}");
    }
    for wrong in [
        vec![],
        vec![insert("x", 1), insert("x", 2)],
        vec![insert("a/b", 1)],
    ] {
        let refused = store.write(T, p, wrong).await;
        assert!(
            matches!(refused, Err(StoreError::Refused(_))),
            "{refused:?}"
        );
    }
}

async fn a_range_is_read_page_by_page_in_order(store: &dyn Store) {
    for partition in ["range-1", "range-2", "range"] {
        let insert = |i: u64| write(&format!("row|{i:03}"), Change::Insert(number(i)));
        let mut writes: Vec<Write> = (0..40).map(insert).collect();
        writes.push(write("other", Change::Insert(number(0))));
        store.write(T, partition, writes).await.unwrap();
    }
    let mut range = Range {
        limit: 7,
        ..Range::of("range-1", "row|")
    };
    let mut seen = Vec::new();
    let mut pages = 0;
    loop {
        let page: Page = store.read(T, &range).await.unwrap();
        assert!(page.rows.len() <= 7);
        pages += 1;
        seen.extend(page.rows.iter().map(|row| row.fields.get_number("n")));
        assert!(page.rows.iter().all(|r| r.key.partition == "range-1"));
        match page.next {
            Some(next) => range.after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, (0..40).collect::<Vec<u64>>());
    assert!(pages >= 6);
    let mut all = Range {
        limit: 50,
        ..Range::all()
    };
    let mut rows = 0;
    loop {
        let page = store.read(T, &all).await.unwrap();
        let mine = |row: &&Row| row.key.partition.starts_with("range");
        rows += page.rows.iter().filter(mine).count();
        match page.next {
            Some(next) => all.after = Some(next),
            None => break,
        }
    }
    assert_eq!(rows, 3 * 41, "a table is read whole, across its partitions");
    let none = store.read(T, &Range::of("range-1", "nothing")).await;
    assert_eq!(none, Ok(Page::default()));
    let odd = Range {
        limit: 0,
        ..Range::all()
    };
    assert!(matches!(
        store.read(T, &odd).await,
        Err(StoreError::Refused(_))
    ));
}

/// An event with something in every field.
pub(crate) fn event(id: &str) -> UsageEvent {
    UsageEvent {
        id: id.to_owned(),
        time: Timestamp::from_unix_ms(1_700_000_000_123),
        app: "chat/portal".into(),
        model: "gpt-4o".into(),
        operation: "chat/completions".into(),
        backend: "ptu".into(),
        deployment: "gpt-4o-ptu".into(),
        kind: Some(Kind::Ptu),
        region: "swedencentral".into(),
        status: 200,
        tokens: Tokens {
            input: 5,
            output: 7,
            cached: 2,
            ..Tokens::default()
        },
        attempts: vec![Attempt {
            backend: "ptu".into(),
            deployment: "gpt-4o-ptu".into(),
            kind: Kind::Ptu,
            status: Some(200),
            error: None,
            after_ms: 0,
            ms: 12,
            billed: true,
        }],
        ..UsageEvent::default()
    }
}

/// No call has a price.
pub(crate) fn unpriced(_: &UsageEvent) -> Charge {
    Charge::default()
}

/// How many calls are written.
pub(crate) async fn calls(store: &dyn Store) -> usize {
    let rows = Pages::new(store, Table::Chargeback, Range::all())
        .rest()
        .await
        .unwrap();
    rows.iter()
        .filter(|row| row.key.row.starts_with(chargeback::CALL))
        .count()
}

async fn events_are_written_once(store: &Arc<dyn Store>) {
    let events: Vec<UsageEvent> = (0..250).map(|i| event(&format!("{i:026}"))).collect();
    let some: Vec<&UsageEvent> = events.iter().skip(90).take(20).collect();
    let ledger = Ledger::new(Arc::clone(store));
    ledger.record(&some, &unpriced).await.unwrap();
    let all: Vec<&UsageEvent> = events.iter().collect();
    for _ in 0..2 {
        ledger.record(&all, &unpriced).await.unwrap();
    }
    let page = store
        .read(
            Table::Chargeback,
            &Range::of("chat=2Fportal|2023-11-14", "call|"),
        )
        .await
        .unwrap();
    assert_eq!(page.rows.len(), 250);
    let fields = &page.rows[3].fields;
    assert_eq!(fields.get_text("id"), events[3].id);
    assert_eq!(fields.get_text("time"), "2023-11-14T22:13:20.123Z");
    assert_eq!(fields.get_text("app"), "chat/portal");
    assert_eq!(fields.get_number("output_tokens"), 7);
    let attempts: Vec<Attempt> = serde_json::from_str(fields.get_text("attempts")).unwrap();
    assert_eq!(attempts, events[3].attempts);
}

async fn owners_that_have_expired_are_deleted(store: &dyn Store) {
    let now = Timestamp::from_unix_ms(1_700_000_000_000);
    for (id, lasts_ms) in [("resp_old", 0), ("resp_new", 1)] {
        let owned = Owned {
            backend: "a".into(),
            app: "b".into(),
            expires: now.plus_ms(lasts_ms),
        };
        let write = affinity::write(id, &owned);
        let partition = affinity::key(id).partition;
        store.write(T, &partition, vec![write]).await.unwrap();
    }
    affinity::sweep(store, now).await.unwrap();
    let row = |id: &str| affinity::key(id);
    assert_eq!(store.get(T, &row("resp_old")).await, Ok(None));
    let left = store.get(T, &row("resp_new")).await.unwrap().unwrap();
    assert_eq!(affinity::owned(&left).expires, now.plus_ms(1));
}

#[tokio::test]
async fn a_store_can_be_shared_behind_its_trait() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
    let other = Arc::clone(&store);
    let written = tokio::spawn(async move {
        other
            .write(T, "p", vec![write("a", Change::Insert(number(1)))])
            .await
    });
    written.await.unwrap().unwrap();
    assert!(get(store.as_ref(), "p", "a").await.is_some());
}
