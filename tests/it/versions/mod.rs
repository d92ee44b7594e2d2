//! Stores that earlier releases wrote, read and gone on with by today's program; and what a later
//! release would leave in one. tests/fixtures/stores/README.md says how the stores came about.

mod kept;
mod later;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use spillway::config::Config;
use spillway::gateway::batches::record::{BatchRecord, Status};
use spillway::gateway::event::UsageEvent;
use spillway::gateway::time::Timestamp;
use spillway::store::embedded::Embedded;
use spillway::store::ledger::{Ledger, Recorded};
use spillway::store::{Change, Pages, Range, Row, Store, Table, Write, bill};

use self::kept::{asked, kept, records};
use crate::azurite::Azurite;
use crate::events::{Relay, rows};
use crate::process::ends;
use crate::served::command;

/// The first release with a store; the first with bills; the last one.
const RELEASES: [&str; 3] = ["5839638", "0cbeb52", "32b006d"];

/// Those that billed.
const BILLED: [&str; 2] = ["0cbeb52", "32b006d"];

/// How a bill is asked for, by the file that has what the release printed.
const BILLS: [(&str, &[&str]); 3] = [
    ("by-app.csv", &["--by", "app"]),
    ("by-app-kind-day.csv", &["--by", "app,backend,kind,day"]),
    ("rows.csv", &["--rows"]),
];

/// 2026-11-29, when the stores were written.
const WRITTEN: Timestamp = Timestamp::from_unix_ms(1_795_910_400_000);

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stores")
}

/// A release's store in a folder of its own, with its events that wait beside it.
fn unpacked(release: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let packed = fixtures().join(release).join("spillway.redb.gz");
    let out = std::fs::File::create(folder.path().join("spillway.redb")).unwrap();
    let done = Command::new("gzip")
        .arg("-dc")
        .arg(packed)
        .stdout(out)
        .status();
    assert!(done.unwrap().success());
    folder
}

fn open(folder: &Path) -> Arc<dyn Store> {
    Arc::new(Embedded::open(folder).unwrap())
}

async fn all(store: &dyn Store, table: Table) -> Vec<Row> {
    Pages::new(store, table, Range::all()).rest().await.unwrap()
}

/// The configuration of the fixtures, over these tables.
fn config(tables: &str) -> Config {
    let text = std::fs::read_to_string(fixtures().join("spillway.toml")).unwrap();
    let env = |name: &str| Some(if name == "TABLES" { tables } else { "" }.to_owned());
    Config::parse(&text, "test", &env).unwrap_or_else(|e| panic!("{e}"))
}

fn events() -> Vec<UsageEvent> {
    let lines = std::fs::read_to_string(fixtures().join("events.jsonl")).unwrap();
    let read = |line: &str| serde_json::from_str(line).unwrap();
    lines.lines().map(read).collect()
}

async fn record(store: &Arc<dyn Store>, events: &[UsageEvent]) -> Recorded {
    let prices = config("embedded:/none").prices();
    let events: Vec<&UsageEvent> = events.iter().collect();
    let ledger = Ledger::new(Arc::clone(store));
    let charging = |event: &UsageEvent| prices.charge(event);
    ledger.record(&events, &charging).await.unwrap()
}

/// What today's program bills of October 2026.
fn billed(tables: &str, how: &[&str]) -> String {
    let file = fixtures().join("spillway.toml");
    let file = file.to_str().unwrap();
    let mut arguments = vec![
        "bill", "--month", "2026-10", "--format", "csv", "--config", file,
    ];
    arguments.extend(how);
    let mut command = command(&arguments, &[("TABLES", tables), ("SPOOL", "/none")]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = ends(command);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The cells of a CSV by the names of their columns, a row each.
fn cells(csv: &str) -> Vec<BTreeMap<String, String>> {
    let mut lines = csv.lines();
    let names = split(lines.next().unwrap());
    let row = |line: &str| names.iter().cloned().zip(split(line)).collect();
    lines.map(row).collect()
}

/// The cells of a line: commas between quotes, of which texts have some, are no ends.
fn split(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    for letter in line.chars() {
        quoted ^= letter == '"';
        match letter {
            ',' if !quoted => cells.push(String::new()),
            _ => cells.last_mut().unwrap().push(letter),
        }
    }
    cells
}

/// Only what `before` has a column for: a later release may have more.
fn of_columns(bill: &str, before: &str) -> Vec<BTreeMap<String, String>> {
    let names: BTreeSet<&str> = before.lines().next().unwrap().split(',').collect();
    let mut rows = cells(bill);
    rows.iter_mut()
        .for_each(|row| row.retain(|name, _| names.contains(&**name)));
    rows
}

fn bills_as_before(release: &str, tables: &str) {
    for (file, how) in BILLS {
        let before = std::fs::read_to_string(fixtures().join(release).join(file)).unwrap();
        let now = billed(tables, how);
        let now = of_columns(&now, &before);
        assert!(now.len() > 1, "{release} {file}");
        assert_eq!(now, cells(&before), "{release} {file}");
    }
}

#[tokio::test]
async fn what_an_earlier_release_billed_is_billed_the_same() {
    for release in BILLED {
        let folder = unpacked(release);
        bills_as_before(release, &format!("embedded:{}", folder.path().display()));
    }
}

/// Puts all rows of a store into another.
async fn copy(from: &dyn Store, to: &dyn Store) {
    for table in Table::ALL {
        let mut partitions: BTreeMap<String, Vec<Write>> = BTreeMap::new();
        for Row { key, fields, .. } in all(from, table).await {
            let change = Change::Insert(fields);
            let write = Write {
                row: key.row,
                change,
            };
            partitions.entry(key.partition).or_default().push(write);
        }
        for (partition, writes) in partitions {
            to.write(table, &partition, writes).await.unwrap();
        }
    }
}

#[tokio::test]
async fn its_rows_are_read_from_table_storage_too() {
    for release in RELEASES {
        let folder = unpacked(release);
        let azurite = Azurite::start();
        let (file, tables) = (open(folder.path()), azurite.store());
        copy(file.as_ref(), &tables).await;
        assert_eq!(kept(&tables).await, kept(file.as_ref()).await, "{release}");
        if BILLED.contains(&release) {
            let tables = format!("http://{}/devstoreaccount1", azurite.address);
            bills_as_before(release, &tables);
        }
    }
}

/// An event that an earlier release counted is not counted again, and what is new goes to what it
/// counted: the bill is that of one release that had counted all.
#[tokio::test]
async fn what_an_earlier_release_counted_is_gone_on_with() {
    let mut more = events();
    for event in &mut more {
        event.id = event.id.replacen("01K", "02K", 1);
    }
    let fresh = tempfile::tempdir().unwrap();
    let store = open(fresh.path());
    record(&store, &events()).await;
    record(&store, &more).await;
    drop(store);
    for release in BILLED {
        let folder = unpacked(release);
        let store = open(folder.path());
        let again = record(&store, &events()).await;
        assert_eq!((again.counted.len(), again.duplicates.len()), (0, 6));
        let new = record(&store, &more).await;
        assert_eq!((new.counted.len(), new.duplicates.len()), (6, 0));
        drop(store);
        let bills = [fresh.path(), folder.path()].map(|folder| {
            let tables = format!("embedded:{}", folder.display());
            // By user each call is read, else the sums.
            ["app", "app,model,backend,kind,day", "app,user"]
                .map(|by| billed(&tables, &["--by", by]))
        });
        let [whole, gone_on] = bills;
        assert_eq!(gone_on, whole, "{release}");
    }
}

#[tokio::test]
async fn an_event_that_waits_in_a_file_of_an_earlier_release_is_delivered() {
    for release in BILLED {
        let waiting =
            std::fs::read_to_string(fixtures().join(release).join("waiting.spool")).unwrap();
        let (_, json) = waiting.trim_end().split_once(' ').unwrap();
        let event: UsageEvent = serde_json::from_str(json).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (data, spool) = (folder.path().join("data"), folder.path().join("spool"));
        std::fs::create_dir(&spool).unwrap();
        // As it is found: a segment, and the lock that nobody holds any more.
        std::fs::write(spool.join("0123456789abcdef-00000001.spool"), &waiting).unwrap();
        std::fs::write(spool.join("0123456789abcdef.lock"), "").unwrap();
        let text = std::fs::read_to_string(fixtures().join("spillway.toml")).unwrap();
        let tables = format!("embedded:{}", data.display());
        let env = [("TABLES", &*tables), ("SPOOL", spool.to_str().unwrap())];
        let relay = Relay::start(folder.path(), &text, &env);
        assert_eq!(relay.terminate().await, 0);
        assert_eq!(
            rows(open(&data).as_ref()).await,
            [event.id].into(),
            "{release}"
        );
    }
}

#[tokio::test]
async fn all_that_an_earlier_release_kept_is_read() {
    for release in BILLED {
        let folder = unpacked(release);
        let store = open(folder.path());
        let kept = kept(store.as_ref()).await;
        for (name, found) in &kept {
            assert!(!found.is_empty(), "{release}: {name}");
        }
        assert!(kept["owners"].iter().all(|one| one.contains("simulated-")));
        assert_eq!((kept["files"].len(), kept["batches"].len()), (4, 2));
        let batches = records::<BatchRecord>(store.as_ref(), Table::Batches).await;
        for batch in batches {
            let counts = (batch.counts.total, batch.counts.completed);
            assert_eq!((batch.status, counts), (Status::Completed, (2, 2)));
        }
        for request in asked(store.as_ref()).await {
            assert_eq!(request.state.as_str(), "replied", "{release}: {request:?}");
        }
    }
}

/// It had no bills yet: its calls are there, and what nobody asks for any more is in no way.
#[tokio::test]
async fn the_first_releases_calls_and_owners_are_read() {
    let folder = unpacked("5839638");
    let store = open(folder.path());
    let kept = kept(store.as_ref()).await;
    // Of responses and of files.
    assert_eq!(kept["owners"].len(), 4);
    let app: Arc<str> = "anonymous".into();
    let calls = bill::calls(store.as_ref(), &app, "2026-11-29", None, 1000)
        .await
        .unwrap();
    let tokens = calls.rows.iter().map(|row| row.fields.get_tokens().total());
    assert!(calls.rows.len() >= 10 && tokens.sum::<u64>() > 0);
    // Today's calls of the same day are counted beside them.
    let mut event = events().remove(0);
    (event.app, event.time) = (app, WRITTEN);
    let recorded = record(&store, &[event]).await;
    assert_eq!(recorded.counted.len(), 1);
}
