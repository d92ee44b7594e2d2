//! The stores on Azurite, Microsoft's emulator of Table and Blob Storage, as processes of its own.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use spillway::store::azure_tables::AzureTables;
use spillway::store::blobs::azure::AzureBlobs;
use spillway::store::ledger::Ledger;
use spillway::store::{Change, Fields, Key, Range, Store, StoreError, Table, Write};

use crate::process::PATIENCE;
use crate::store::{calls, check, event, unpriced};

/// Azurite's services, below the folder that `npm ci` fills.
const SERVICES: &str = "tests/azurite/node_modules/azurite/dist/src";

/// Longest that it may take to listen, on a machine that does other things: it is a large program.
const START: Duration = Duration::from_secs(60);

/// A running Azurite; it ends with the test.
pub(crate) struct Azurite {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Where it keeps its rows when it is asked to end; `None`: in memory.
    kept: Option<PathBuf>,
    _folder: tempfile::TempDir,
}

impl Azurite {
    /// An empty one of tables.
    pub(crate) fn start() -> Self {
        Self::serve("table", free_address(), None)
    }

    /// One of tables that keeps its rows in a folder when it is asked to end.
    pub(crate) fn start_in(folder: &Path) -> Self {
        Self::serve("table", free_address(), Some(folder.to_owned()))
    }

    /// Asks one of tables to end, and starts it again with the rows that it had.
    pub(crate) fn restart(mut self) -> Self {
        let (address, kept) = (self.address, self.kept.take());
        let pid = self.child.id().to_string();
        // At SIGTERM it would not write them.
        Command::new("kill").args(["-INT", &pid]).status().unwrap();
        let begun = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE, "Azurite does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self::serve("table", address, kept)
    }

    /// An empty one of blobs.
    pub(crate) fn start_blobs() -> Self {
        Self::serve("blob", free_address(), None)
    }

    fn serve(service: &str, address: SocketAddr, kept: Option<PathBuf>) -> Self {
        let services = Path::new(env!("CARGO_MANIFEST_DIR")).join(SERVICES);
        let main = services.join(service).join("main.js");
        assert!(
            main.exists(),
            "Azurite is not installed. Run tests/run once, or: npm ci --prefix tests/azurite"
        );
        let folder = tempfile::tempdir().unwrap();
        let rows: &[&OsStr] = match &kept {
            None => &["--inMemoryPersistence".as_ref()],
            Some(kept) => &["--location".as_ref(), kept.as_os_str()],
        };
        // It would report its use to Microsoft.
        let child = Command::new("node")
            .arg(main)
            .args(rows)
            .args([&format!("--{service}Host"), "127.0.0.1"])
            .arg(format!("--{service}Port"))
            .arg(address.port().to_string())
            .args(["--silent", "--disableTelemetry"])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("Azurite needs node (Debian: nodejs): {e}"));
        let mut azurite = Self {
            child,
            address,
            kept,
            _folder: folder,
        };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            let has_ended = azurite.child.try_wait().unwrap().is_some();
            assert!(!has_ended, "Azurite has ended");
            assert!(begun.elapsed() < START, "Azurite does not listen");
            std::thread::sleep(Duration::from_millis(25));
        }
        azurite
    }

    /// The store on it.
    pub(crate) fn store(&self) -> AzureTables {
        emulator(self.address)
    }

    /// The store of blobs on it.
    pub(crate) fn blobs(&self) -> AzureBlobs {
        let endpoint = format!("http://{}", self.address).parse().unwrap();
        AzureBlobs::emulator(&endpoint).unwrap()
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A store on an emulator that listens there.
pub(crate) fn emulator(address: SocketAddr) -> AzureTables {
    let endpoint = format!("http://{address}").parse().unwrap();
    AzureTables::emulator(&endpoint).unwrap()
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

const T: Table = Table::Affinity;

fn insert(row: &str, n: u64) -> Write {
    Write {
        row: row.to_owned(),
        change: Change::Insert(Fields::new().number("n", n)),
    }
}

#[tokio::test]
async fn azure_tables_do_what_every_store_does() {
    let azurite = Azurite::start();
    let store: Arc<dyn Store> = Arc::new(azurite.store());
    check(&store).await;
}

#[tokio::test]
async fn tables_are_made_once_whoever_comes_first() {
    let azurite = Azurite::start();
    let (first, second) = (azurite.store(), azurite.store());
    let (a, b) = tokio::join!(first.make_tables(), second.make_tables());
    assert_eq!((a, b), (Ok(()), Ok(())));
    assert_eq!(first.make_tables().await, Ok(()));
    first.write(T, "p", vec![insert("a", 1)]).await.unwrap();
    let page = second.read(T, &Range::all()).await.unwrap();
    assert_eq!(page.rows.len(), 1);
}

#[tokio::test]
async fn keys_hold_whatever_table_storage_allows() {
    let azurite = Azurite::start();
    let store = azurite.store();
    let keys = [
        "o'brien",
        "''",
        "a b",
        "a=2Fb",
        "a+b",
        "a&b=c",
        "é\u{1F600}",
        "..",
        "(x,y)",
        "a|b",
        "\"",
        "a;b",
        "$batch",
    ];
    for partition in keys {
        let writes = keys
            .iter()
            .zip(1..)
            .map(|(row, n)| insert(row, n))
            .collect();
        store.write(T, partition, writes).await.unwrap();
        for (row, n) in keys.iter().zip(1..) {
            let key = Key {
                partition: partition.to_owned(),
                row: (*row).to_owned(),
            };
            let row = store.get(T, &key).await.unwrap();
            let row = row.unwrap_or_else(|| panic!("{key:?} is not there"));
            assert_eq!((row.fields.get_number("n"), &row.key), (n, &key));
            let change = Change::Replace(row.fields, row.etag);
            let row = key.row.clone();
            let again = store.write(T, partition, vec![Write { row, change }]).await;
            assert_eq!(again, Ok(()), "{key:?}");
        }
        let page = store.read(T, &Range::of(partition, "")).await.unwrap();
        assert_eq!(page.rows.len(), keys.len(), "{partition}");
    }
}

#[tokio::test]
async fn the_largest_transaction_and_page_fit() {
    let azurite = Azurite::start();
    let store = azurite.store();
    for batch in 0..11_u64 {
        let rows = (0..100).map(|i| insert(&format!("{batch:02}-{i:02}"), i));
        store.write(T, "p", rows.collect()).await.unwrap();
    }
    let mut range = Range::of("p", "");
    let first = store.read(T, &range).await.unwrap();
    assert_eq!(first.rows.len(), 1000);
    range.after = first.next;
    let second = store.read(T, &range).await.unwrap();
    assert_eq!((second.rows.len(), second.next), (100, None));
    assert_eq!(second.rows[0].key.row, "10-00");
}

#[tokio::test]
async fn a_conflict_is_named_also_when_it_is_the_hundredth_write() {
    let azurite = Azurite::start();
    let store = azurite.store();
    store.write(T, "p", vec![insert("99", 0)]).await.unwrap();
    let all = (0..100).map(|i| insert(&format!("{i:02}"), 1)).collect();
    let exists = store.write(T, "p", all).await;
    assert_eq!(exists, Err(StoreError::Exists { index: 99 }));
    let page = store.read(T, &Range::of("p", "")).await.unwrap();
    assert_eq!(page.rows.len(), 1, "nothing else was written");
}

/// What one instance can't know of the other: all of it is decided by the service.
#[tokio::test]
async fn of_instances_that_insert_at_once_one_wins() {
    let azurite = Azurite::start();
    let store = Arc::new(azurite.store());
    let mut tasks = tokio::task::JoinSet::new();
    for instance in 0..8_u64 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let mut won = 0;
            for round in 0..5 {
                let own = insert(&format!("own-{instance}-{round}"), instance);
                let writes = vec![own, insert(&format!("one-{round}"), instance)];
                match store.write(T, "p", writes).await {
                    Ok(()) => won += 1,
                    Err(StoreError::Exists { index: 1 }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            won
        });
    }
    let won: i32 = tasks.join_all().await.into_iter().sum();
    assert_eq!(won, 5);
    let own = store.read(T, &Range::of("p", "own-")).await.unwrap();
    assert_eq!(own.rows.len(), 5, "a transaction that failed left nothing");
}

#[tokio::test]
async fn while_azurite_is_away_the_store_is_unavailable_and_afterwards_it_works() {
    let address = free_address();
    let store: Arc<dyn Store> = Arc::new(emulator(address));
    let ledger = Ledger::new(Arc::clone(&store));
    let events = [event("00000000000000000000000001")];
    let events: Vec<_> = events.iter().collect();
    let lost = ledger.record(&events, &unpriced).await;
    assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{lost:?}");
    let azurite = Azurite::start();
    let relay = crate::table_faults::relay_to(azurite.address, address).await;
    ledger.record(&events, &unpriced).await.unwrap();
    assert_eq!(calls(store.as_ref()).await, 1);
    drop(relay);
}
