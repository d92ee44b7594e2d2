//! Stores that earlier releases wrote, read and gone on with by today's program; and what a later
//! release would leave in one. tests/fixtures/stores/README.md says how the stores came about.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use spillway::config::Config;
use spillway::gateway::batches::file::FileRecord;
use spillway::gateway::batches::record::{BatchRecord, Status};
use spillway::gateway::event::UsageEvent;
use spillway::gateway::pacing::window::{DeploymentId, Minute};
use spillway::gateway::time::Timestamp;
use spillway::store::console::Span;
use spillway::store::embedded::Embedded;
use spillway::store::ledger::{Ledger, Recorded};
use spillway::store::{
    Change, Fields, Key, Pages, Range, Row, Store, Table, Write, affinity, batches, bill, console,
    instances, requests, slots, utilization,
};

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

/// Years later: all that ever expires has.
const LATER: Timestamp = Timestamp::from_unix_ms(2_000_000_000_000);

const DAY_MS: u64 = 24 * 3_600_000;

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

/// What is kept, as today's program reads it: by table, in the order of keys.
type Kept = BTreeMap<&'static str, Vec<String>>;

fn said<T: Debug>(all: impl IntoIterator<Item = T>) -> Vec<String> {
    all.into_iter().map(|one| format!("{one:?}")).collect()
}

/// The partitions of a table, without those of a later release.
async fn partitions(store: &dyn Store, table: Table) -> BTreeSet<String> {
    let rows = all(store, table).await;
    let names = rows.into_iter().map(|row| row.key.partition);
    names.filter(|name| !name.starts_with(LATER_KEY)).collect()
}

async fn kept(store: &dyn Store) -> Kept {
    let mut kept = Kept::new();
    let owners = all(store, Table::Affinity).await;
    let owners = owners
        .iter()
        .filter(|row| !row.key.partition.starts_with(LATER_KEY));
    kept.insert("owners", said(owners.map(affinity::owned)));
    kept.insert("instances", said(instances::read(store).await.unwrap()));
    kept.insert("requests", said(asked(store).await));
    kept.insert(
        "files",
        said(records::<FileRecord>(store, Table::Files).await),
    );
    kept.insert(
        "batches",
        said(records::<BatchRecord>(store, Table::Batches).await),
    );
    for model in partitions(store, Table::Slots).await {
        let read = slots::read(store, &model).await.unwrap();
        kept.entry("slots")
            .or_default()
            .extend(said(read.board.leases));
    }
    for deployment in partitions(store, Table::Utilization).await {
        let Some((backend, name)) = deployment
            .split_once('|')
            .filter(|(one, _)| *one != "hours")
        else {
            continue;
        };
        let id = DeploymentId {
            backend: backend.into(),
            deployment: name.into(),
        };
        let sheet = utilization::read(store, &id, Minute::of(WRITTEN))
            .await
            .unwrap();
        kept.entry("utilization")
            .or_default()
            .extend(said(sheet.known.counts));
    }
    let end = WRITTEN.plus_ms(DAY_MS);
    let minutes = console::read(store, Span::Minute, WRITTEN, end)
        .await
        .unwrap();
    kept.insert("minutes", said(minutes));
    kept.extend(charged(store).await);
    kept
}

async fn asked(store: &dyn Store) -> Vec<requests::Request> {
    let mut read = Vec::new();
    for row in all(store, Table::Requests).await {
        if !row.key.partition.starts_with(LATER_KEY) {
            let found = requests::read(store, &row.key).await.unwrap();
            read.push(found.unwrap().request);
        }
    }
    read
}

async fn records<T: serde::de::DeserializeOwned>(store: &dyn Store, table: Table) -> Vec<T> {
    let mut read = Vec::new();
    for app in partitions(store, table).await {
        if app != "active|" {
            let (some, _) = batches::list(store, table, &app, None, 1000).await.unwrap();
            read.extend(some);
        }
    }
    read
}

/// Which apps have calls, what these come to, and how many there are.
async fn charged(store: &dyn Store) -> Kept {
    let mut kept = Kept::new();
    for (month, day) in [("2026-10", "2026-10-23"), ("2026-11", "2026-11-29")] {
        for app in bill::apps(store, month).await.unwrap() {
            let day: Arc<str> = day.into();
            let sums = bill::sums(store, &app, &day).await.unwrap();
            let users = bill::by_user(store, &app, &day).await.unwrap();
            let calls = bill::calls(store, &app, &day, None, 1000).await.unwrap();
            kept.entry("apps").or_default().push(app.to_string());
            kept.entry("sums").or_default().extend(said(sums.uses));
            kept.entry("hours").or_default().extend(said(sums.ptu_uses));
            kept.entry("users").or_default().extend(said(users.uses));
            let ids = calls.rows.iter().map(|row| &row.key.row);
            kept.entry("calls").or_default().extend(said(ids));
        }
    }
    kept
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

// What a later release leaves behind, when it is rolled back or runs beside this one: columns in the rows
// that there are, kinds of rows beside them, and partitions of its own.

const LATER_KEY: &str = "later|";

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
