//! The bill: from events that are recorded to what finance reads.

mod own;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use reqwest::StatusCode;
use rust_decimal::Decimal;
use serde_json::Value;
use spillway::billing::Billing;
use spillway::billing::export::{Export, RowFormat};
use spillway::billing::period::{Period, Span};
use spillway::config::{Config, KeyHash};
use spillway::gateway::bill::By;
use spillway::gateway::event::{Attempt, Kind, Outcome, Tokens, UsageEvent, UsageSource};
use spillway::gateway::time::Timestamp;
use spillway::store::Store;
use spillway::store::embedded::Embedded;
use spillway::store::ledger::Ledger;

use crate::gateway::{Running, app, start_with};
use crate::process::{BINARY, PATIENCE};

/// The example of docs/bill.md: a PTU of 50 units, there since the 23rd, and pay-as-you-go to spill to.
fn config(tables: &str) -> String {
    let admin = KeyHash::of("admin-key");
    format!(
        r#"
[auth]
mode = "key"
admin_key_hashes = ["{admin}"]
{tables}
[[backend]]
name = "ptu-sweden"
endpoint = "http://127.0.0.1:1"
region = "swedencentral"
[[backend.deployment]]
name = "gpt-4o-ptu"
model = "gpt-4o"
kind = "ptu"
ptus = 50
since = "2026-10-23"
[[backend]]
name = "payg-sweden"
endpoint = "http://127.0.0.1:1"
region = "swedencentral"
[[backend.deployment]]
name = "gpt-4o"
kind = "payg"
{}{}"#,
        app("portal", ""),
        app("nightly", "")
    )
}

fn read(config: &str) -> Config {
    Config::parse(config, "test", &|_| None).unwrap_or_else(|e| panic!("{e}"))
}

/// 2026-10-23T09:00:00.000Z, a day that is over.
const NINE: Timestamp = Timestamp::from_unix_ms(1_792_746_000_000);
const MINUTE: u64 = 60_000;

fn call(id: &str, app: &str, ms: u64, tokens: (u64, u64, u64), kind: Kind) -> UsageEvent {
    let (input, cached, output) = tokens;
    let (backend, deployment) = match kind {
        Kind::Ptu => ("ptu-sweden", "gpt-4o-ptu"),
        Kind::Payg => ("payg-sweden", "gpt-4o"),
    };
    UsageEvent {
        id: id.into(),
        time: NINE.plus_ms(ms),
        app: app.into(),
        user: format!("user-of-{app}").into(),
        model: "gpt-4o".into(),
        operation: "chat/completions".into(),
        backend: backend.into(),
        deployment: deployment.into(),
        kind: Some(kind),
        status: 200,
        spilled: kind == Kind::Payg,
        outcome: Outcome::Completed,
        tokens: Tokens {
            input,
            cached,
            output,
            ..Tokens::default()
        },
        usage: UsageSource::Reported,
        ..UsageEvent::default()
    }
}

/// The calls of the example.
fn example() -> Vec<UsageEvent> {
    vec![
        // 1,000,000 - 250,000 + 4 * 125,000 = 1,250,000 weighted tokens.
        call(
            "01a",
            "portal",
            MINUTE,
            (1_000_000, 250_000, 125_000),
            Kind::Ptu,
        ),
        // 2,000,000 + 4 * 125,000 = 2,500,000.
        call(
            "01b",
            "nightly",
            2 * MINUTE,
            (2_000_000, 0, 125_000),
            Kind::Ptu,
        ),
        // In the same minute it is full for the portal.
        call(
            "01c",
            "portal",
            2 * MINUTE + 1,
            (200_000, 80_000, 50_000),
            Kind::Payg,
        ),
    ]
}

async fn record(store: &Arc<dyn Store>, config: &Config, events: &[UsageEvent]) {
    let prices = config.prices();
    let events: Vec<&UsageEvent> = events.iter().collect();
    let ledger = Ledger::new(Arc::clone(store));
    let charging = |event: &UsageEvent| prices.charge(event);
    let recorded = ledger.record(&events, &charging).await.unwrap();
    assert_eq!(recorded.counted.len(), events.len());
}

fn embedded() -> (tempfile::TempDir, Arc<dyn Store>) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Embedded::open(folder.path()).unwrap());
    (folder, store)
}

/// A gateway with the calls of the example.
async fn running(store: Arc<dyn Store>) -> Running {
    let text = config("");
    record(&store, &read(&text), &example()).await;
    start_with(&text, store).await
}

/// Makes a test of each of these for each kind of store: what is billed does not depend on it.
macro_rules! from_each_store {
    ($($name:ident),+ $(,)?) => {
        mod from_a_file {
            $(#[tokio::test]
            async fn $name() {
                let (_folder, store) = super::embedded();
                super::$name(store).await;
            })+
        }

        mod from_azure_tables {
            $(#[tokio::test]
            async fn $name() {
                let azurite = crate::azurite::Azurite::start();
                super::$name(std::sync::Arc::new(azurite.store())).await;
            })+
        }
    };
}

from_each_store!(
    the_example_of_the_documentation_is_what_the_bill_says,
    a_ptu_that_came_on_the_23rd_costs_nothing_before,
    spilling_is_attributed_to_whoever_filled_the_ptu_in_that_minute,
    an_app_sees_its_own_bill_and_nobody_elses,
    an_export_in_pieces_is_the_export_in_one,
    sums_and_rows_make_the_same_bill,
);

async fn json(running: &Running, query: &str, key: &str) -> Value {
    let answer = running.get(&format!("/spillway/chargeback?{query}"));
    let answer = answer.header("api-key", key).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{query}");
    answer.json().await.unwrap()
}

fn line<'v>(bill: &'v Value, name: &str) -> &'v Value {
    let lines = bill["lines"].as_array().unwrap();
    lines.iter().find(|line| line["app"] == name).unwrap()
}

async fn the_example_of_the_documentation_is_what_the_bill_says(store: Arc<dyn Store>) {
    let running = running(store).await;
    let bill = json(&running, "from=2026-10-23&to=2026-10-23", "admin-key").await;
    // The hour costs 50.00 and holds 7,500,000 weighted tokens: a sixth, a third, and half idle.
    let portal = line(&bill, "portal");
    assert_eq!(portal["ptu_cost"], "8.333333333333");
    assert_eq!(portal["weighted_tokens"], 1_250_000);
    // 120,000 at 2.50, 80,000 cached at 1.25, 50,000 at 10.00 a million.
    assert_eq!(portal["payg_cost"], "0.9");
    assert_eq!(portal["cost"], "9.233333333333");
    assert_eq!(portal["spilled_calls"], 1);
    let nightly = line(&bill, "nightly");
    assert_eq!(nightly["cost"], "16.666666666667");
    // Half of that hour, and the 23 others.
    let idle = line(&bill, "(idle)");
    assert_eq!(
        (&idle["idle"], &idle["cost"]),
        (&Value::from(true), &Value::from("1175"))
    );
    assert_eq!(bill["total"]["cost"], "1200.9");
    let page = include_str!("../../docs/bill.md");
    for shown in [
        "8.333333333333",
        "16.666666666667",
        "9.233333333333",
        "1175",
        "1200.9",
    ] {
        assert!(page.contains(shown), "{shown} is not in docs/bill.md");
    }
}

async fn a_ptu_that_came_on_the_23rd_costs_nothing_before(store: Arc<dyn Store>) {
    let running = running(store).await;
    let bill = json(&running, "month=2026-10", "admin-key").await;
    // Nine days of 24 hours at 50.00, and what spilled.
    assert_eq!(bill["total"]["cost"], "10800.9");
}

async fn spilling_is_attributed_to_whoever_filled_the_ptu_in_that_minute(store: Arc<dyn Store>) {
    let running = running(store).await;
    let spills = json(&running, "month=2026-10&spill=true", "admin-key").await;
    let [spill] = &spills["lines"].as_array().unwrap()[..] else {
        panic!("{spills}")
    };
    assert_eq!(
        (&spill["filled_by"], &spill["app"]),
        (&"nightly".into(), &"portal".into())
    );
    assert_eq!(spill["spilled_tokens"], 250_000);
    assert_eq!(spill["spilled_cost"], "0.9");
}

async fn an_app_sees_its_own_bill_and_nobody_elses(store: Arc<dyn Store>) {
    let running = running(store).await;
    let own = json(&running, "month=2026-10", "portal-key").await;
    assert_eq!(own["lines"].as_array().unwrap().len(), 1);
    assert_eq!(own["total"]["cost"], "9.233333333333");
    for (query, key, status) in [
        (
            "month=2026-10&app=nightly",
            "portal-key",
            StatusCode::FORBIDDEN,
        ),
        ("month=2026-10", "no-key", StatusCode::UNAUTHORIZED),
        (
            "month=2026-10&spill=true",
            "portal-key",
            StatusCode::BAD_REQUEST,
        ),
    ] {
        let answer = running.get(&format!("/spillway/chargeback?{query}"));
        let answer = answer.header("api-key", key).send().await.unwrap();
        assert_eq!(answer.status(), status, "{query}");
    }
    let rows = json(&running, "month=2026-10&rows=true", "nightly-key").await;
    let rows = rows["calls"].as_array().unwrap();
    assert!(rows.len() == 1 && rows[0]["app"] == "nightly");
}

#[tokio::test]
async fn a_query_that_can_not_be_answered_says_why() {
    let (_folder, store) = embedded();
    let running = running(store).await;
    for (query, why) in [
        ("month=November", "is no month"),
        ("from=2026-10-01", "name a month"),
        ("from=2026-10-02&to=2026-10-01", "is before"),
        ("from=2020-01-01&to=2026-10-01", "more than 366 days"),
        ("month=2026-10&by=colour", "nothing to break a bill down by"),
        ("month=2026-10&format=pdf", "is no format"),
        ("month=2026-10&limit=5", "are for `rows=true`"),
        ("month=2026-10&rows=true&limit=100000", "from 1 to 10000"),
        (
            "month=2026-10&rows=true&continuation=x",
            "none of this export",
        ),
        ("mouth=2026-10", "unknown field"),
    ] {
        let answer = running.get(&format!("/spillway/chargeback?{query}"));
        let answer = answer.header("api-key", "admin-key").send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{query}");
        let body: Value = answer.json().await.unwrap();
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(why), "{query}: {message}");
    }
}

async fn an_export_in_pieces_is_the_export_in_one(store: Arc<dyn Store>) {
    let text = config("");
    let mut events = Vec::new();
    for n in 0..25u64 {
        let app = ["portal", "nightly"][usize::try_from(n % 2).unwrap()];
        let mut event = call(
            &format!("id{n:03}"),
            app,
            n * 5_000_000,
            (n, 0, 1),
            Kind::Payg,
        );
        event.user = "=HYPERLINK(\"http://evil\",\"x\")".into();
        events.push(event);
    }
    record(&store, &read(&text), &events).await;
    let running = start_with(&text, store).await;
    let get = async |more: &str| {
        let query = format!("month=2026-10&rows=true&format=csv{more}");
        let answer = running.get(&format!("/spillway/chargeback?{query}"));
        let answer = answer.header("api-key", "admin-key").send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let next = answer.headers().get("x-spillway-continuation");
        let next = next.map(|next| next.to_str().unwrap().to_owned());
        let body = answer.text().await.unwrap();
        let lines: Vec<String> = body.lines().skip(1).map(str::to_owned).collect();
        (lines, next)
    };
    let (whole, none) = get("").await;
    assert_eq!((whole.len(), none), (25, None));
    assert!(
        whole[0].contains("\"'=HYPERLINK(\"\"http://evil\"\",\"\"x\"\")\""),
        "{}",
        whole[0]
    );
    let (mut pieces, mut next) = get("&limit=4").await;
    while let Some(token) = next {
        let token = token.replace('|', "%7C").replace('=', "%3D");
        let (more, after) = get(&format!("&limit=4&continuation={token}")).await;
        pieces.extend(more);
        next = after;
    }
    assert_eq!(pieces, whole);
}

/// The store's writer takes a moment to let go of the file after the store is dropped.
fn bill_command(folder: &std::path::Path, more: &[&str]) -> String {
    let begun = std::time::Instant::now();
    loop {
        let output = Command::new(BINARY)
            .args(["bill", "--month", "2026-10", "--config"])
            .arg(folder.join("spillway.toml"))
            .args(more)
            .output()
            .unwrap();
        if output.status.success() {
            return String::from_utf8(output.stdout).unwrap();
        }
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_held = errors.contains("another process has it open");
        assert!(is_held && begun.elapsed() < PATIENCE, "{errors}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[tokio::test]
async fn the_command_writes_the_bill_as_table_and_csv_and_the_rows_shown_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let text = config(&format!(
        "[storage]\ntables = \"embedded:{}\"",
        data.display()
    ));
    std::fs::write(folder.path().join("spillway.toml"), &text).unwrap();
    {
        let store: Arc<dyn Store> = Arc::new(Embedded::open(&data).unwrap());
        record(&store, &read(&text), &example()).await;
    }
    let table = bill_command(folder.path(), &[]);
    let rows: BTreeMap<&str, Vec<&str>> = table
        .lines()
        .skip(3)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .map(|cells| (cells[0], cells))
        .collect();
    assert_eq!(rows["portal"][6..], ["0.90", "8.33", "9.23"]);
    assert_eq!(rows["nightly"][6..], ["0.00", "16.67", "16.67"]);
    assert_eq!(rows["(idle)"][6..], ["0.00", "10775.00", "10775.00"]);
    assert_eq!(rows["total"][6..], ["0.90", "10800.00", "10800.90"]);
    let csv = bill_command(folder.path(), &["--format", "csv", "--by", "app,kind,day"]);
    let mut lines = csv.lines();
    let head: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!(head[..4], ["app", "kind", "day", "idle"]);
    let cost = head.iter().position(|name| *name == "cost").unwrap();
    let sum: Decimal = lines
        .map(|line| {
            line.split(',')
                .nth(cost)
                .unwrap()
                .parse::<Decimal>()
                .unwrap()
        })
        .sum();
    assert_eq!(sum.normalize().to_string(), "10800.9");
    let calls = bill_command(folder.path(), &["--rows", "--format", "csv"]);
    assert_eq!(calls.lines().count(), 1 + example().len());
}

/// Random calls of two days and some hours, of odd names and models too. What some are charged for is
/// another deployment than the one that is said to have answered: the client had left.
fn random_calls(seed: u64) -> Vec<UsageEvent> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut one = |n: usize| {
        let app = random.choice(["portal", "nightly", "=odd|app"]).unwrap();
        let kind = random.choice([Kind::Ptu, Kind::Payg]).unwrap();
        let tokens = (random.u64(0..50_000), 0, random.u64(0..9_000));
        let ms = random.u64(0..200_000_000);
        let mut event = call(&format!("{n:05}"), app, ms, tokens, kind);
        event.user = format!("user{}", random.u8(0..4)).into();
        match random.u8(0..10) {
            0 => {
                (event.model, event.deployment, event.backend) =
                    ("llama".into(), "x".into(), "y".into());
            }
            1 => {
                event.attempts = vec![Attempt {
                    backend: "ptu-sweden".into(),
                    deployment: "gpt-4o-ptu".into(),
                    kind: Kind::Ptu,
                    status: None,
                    error: Some("client_gone".into()),
                    after_ms: 0,
                    ms: 7,
                    billed: true,
                }];
                event.spilled = false;
            }
            _ => {}
        }
        event
    };
    (0..500).map(&mut one).collect()
}

/// The bill of the sums, the bill of the calls, and a reckoning of our own agree.
async fn sums_and_rows_make_the_same_bill(store: Arc<dyn Store>) {
    let config = read(&config(""));
    let seed = fastrand::u64(..);
    let events = random_calls(seed);
    record(&store, &config, &events).await;
    let span = Span {
        month: Some("2026-10"),
        ..Span::default()
    };
    let now = NINE.plus_ms(30 * 24 * 60 * MINUTE);
    let period = Period::read(span, now).unwrap();
    let billing = Billing::new(&config, store);
    let coarse = billing
        .bill(period, vec![By::App], None, now)
        .await
        .unwrap();
    let fine = billing
        .bill(period, vec![By::App, By::User], None, now)
        .await
        .unwrap();
    assert_eq!(coarse.total, fine.total, "seed {seed}");
    for line in &coarse.lines {
        let users = fine.lines.iter().filter(|one| one.of[0] == line.of[0]);
        let cost: Decimal = users.map(|one| one.cost().unwrap()).sum();
        assert_eq!(cost, line.cost().unwrap(), "seed {seed}: {}", line.of[0]);
    }
    let prices = config.prices();
    let payg: Decimal = events
        .iter()
        .filter_map(|one| prices.charge(one).cost)
        .sum();
    let total = &coarse.total;
    assert_eq!(total.figures.cost, payg, "seed {seed}");
    let unpriced = events
        .iter()
        .filter(|one| prices.charge(one).is_unpriced)
        .count();
    assert_eq!(
        total.figures.unpriced_calls,
        u64::try_from(unpriced).unwrap(),
        "seed {seed}"
    );
    let weighted: u64 = events.iter().map(|one| prices.charge(one).weighted).sum();
    assert_eq!(total.weighted, weighted, "seed {seed}");
    assert_eq!(total.ptu_cost, Decimal::from(9 * 24 * 50), "seed {seed}");
    assert_eq!(total.figures.calls, 500, "seed {seed}");
}

/// To the last digit, however it is broken down, and call by call.
#[tokio::test]
async fn both_stores_make_the_same_bill() {
    let azurite = crate::azurite::Azurite::start();
    let (_folder, file) = embedded();
    let tables: Arc<dyn Store> = Arc::new(azurite.store());
    let config = read(&config(""));
    let seed = fastrand::u64(..);
    let now = NINE.plus_ms(30 * 24 * 60 * MINUTE);
    let span = Span {
        month: Some("2026-10"),
        ..Span::default()
    };
    let period = Period::read(span, now).unwrap();
    let mut made = Vec::new();
    for store in [file, tables] {
        record(&store, &config, &random_calls(seed)).await;
        let billing = Billing::new(&config, Arc::clone(&store));
        let mut bills = Vec::new();
        for by in [
            By::ALL.to_vec(),
            vec![By::App],
            vec![By::Day, By::Kind],
            vec![],
        ] {
            bills.push(billing.bill(period, by, None, now).await.unwrap());
        }
        let spilled = billing.spilled(period).await.unwrap();
        let mut calls = String::new();
        let export = Export::new(store, RowFormat::Csv, period, None, None, usize::MAX);
        let mut export = export.await.unwrap();
        while let Some(piece) = export.next().await.unwrap() {
            calls.push_str(&piece);
        }
        made.push((bills, spilled, calls));
    }
    let (bills, spilled, calls) = &made[0];
    assert!(bills[0].lines.len() > 50 && !spilled.is_empty());
    assert_eq!(calls.lines().count(), 501);
    assert_eq!(made[0], made[1], "seed {seed}");
}
