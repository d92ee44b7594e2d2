//! What the files hold gets to the table, however often that fails.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::*;
use crate::gateway::id::new_id;
use crate::gateway::price::Charge;
use crate::store::embedded::Embedded;
use crate::store::{Answer, Key, Page, Pages, Range, Row, Store, Table, Write};

/// A store whose every so manieth access fails.
#[derive(Debug)]
struct Shaky {
    store: Embedded,
    accesses: AtomicUsize,
    every: usize,
}

impl Shaky {
    fn fails(&self) -> Result<(), StoreError> {
        let access = self.accesses.fetch_add(1, SeqCst) + 1;
        if access.is_multiple_of(self.every) {
            return Err(StoreError::Unavailable("as the test wants it".into()));
        }
        Ok(())
    }
}

impl Store for Shaky {
    fn get<'a>(&'a self, table: Table, key: &'a Key) -> Answer<'a, Option<Row>> {
        Box::pin(async move {
            self.fails()?;
            self.store.get(table, key).await
        })
    }

    fn read<'a>(&'a self, table: Table, range: &'a Range) -> Answer<'a, Page> {
        Box::pin(async move {
            self.fails()?;
            self.store.read(table, range).await
        })
    }

    fn write<'a>(&'a self, table: Table, partition: &'a str, writes: Vec<Write>) -> Answer<'a, ()> {
        Box::pin(async move {
            self.fails()?;
            self.store.write(table, partition, writes).await
        })
    }
}

fn events(count: usize) -> Vec<UsageEvent> {
    let mut random = fastrand::Rng::with_seed(1);
    let now = Clock::new().now();
    let event = |_| UsageEvent {
        id: new_id(now, &mut random),
        time: now,
        app: "portal".into(),
        ..UsageEvent::default()
    };
    (0..count).map(event).collect()
}

fn into(store: Arc<dyn Store>) -> Ways {
    Ways {
        hub: None,
        ledger: Some(Arc::new(Ledger::new(store))),
        prices: Current::new(Prices::default()),
        traces: None,
    }
}

fn settings(spool: PathBuf) -> Settings {
    Settings {
        gather: Duration::ZERO,
        is_durable: false,
        spool: Some(spool),
        spool_bytes: 1 << 30,
    }
}

/// Rows of calls in the table.
async fn rows(store: &dyn Store) -> usize {
    let pages = Pages::new(store, Table::Chargeback, Range::all());
    let rows = pages.rest().await.unwrap();
    let calls = rows.iter().filter(|row| row.key.row.starts_with("call|"));
    calls.count()
}

#[tokio::test]
async fn a_file_is_delivered_although_the_table_fails_more_often_than_a_whole_file_takes() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str| Embedded::open(&folder.path().join(name)).unwrap();
    let all = events(6 * MAX_EVENTS);

    // What one part takes, of a store that never fails.
    let calm = Arc::new(Shaky {
        store: open("calm"),
        accesses: AtomicUsize::new(0),
        every: usize::MAX,
    });
    let part: Vec<&UsageEvent> = all.iter().take(MAX_EVENTS).collect();
    let ledger = Ledger::new(Arc::clone(&calm) as _);
    let free = |_: &UsageEvent| Charge::default();
    ledger.record(&part, &free).await.unwrap();
    let of_a_part = calm.accesses.load(SeqCst);

    let shaky = Arc::new(Shaky {
        store: open("shaky"),
        accesses: AtomicUsize::new(0),
        every: 2 * of_a_part,
    });
    let mut spool = Spool::open(&folder.path().join("spool"), 1 << 30).unwrap();
    assert_eq!(spool.append(all.iter()).unwrap(), all.len());
    drop(spool);
    let settings = settings(folder.path().join("spool"));
    let outbox = Outbox::new(into(Arc::clone(&shaky) as _), settings).unwrap();
    let spool = outbox.spool.as_ref().unwrap();
    let mut failures = 0;
    while let Err(why) = outbox.deliver_files(spool, &mut 0).await {
        failures += 1;
        assert!(failures < 20, "it does not come on: {why}");
    }
    assert!(failures > 1, "the table was to fail");
    assert_eq!(rows(&shaky.store).await, all.len());
}

#[test]
fn what_is_to_be_durable_has_a_folder_or_does_not_begin() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(&folder.path().join("store")).unwrap());
    std::fs::write(folder.path().join("file"), "").unwrap();
    let spool = folder.path().join("file").join("spool");
    let without = settings(spool.clone());
    let outbox = Outbox::new(into(Arc::clone(&store)), without).unwrap();
    assert!(outbox.spool.is_none());
    let durable = Settings {
        is_durable: true,
        ..settings(spool.clone())
    };
    let why = Outbox::new(into(store), durable).unwrap_err().to_string();
    assert!(why.contains(&*spool.to_string_lossy()), "{why}");
    assert!(why.contains("[chargeback] spool"), "{why}");
}
