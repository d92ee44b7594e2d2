//! The money test: whatever fails on the way, the sums are those of an independent reckoning to the
//! last digit, each event has one row, and what could not be read is all there.
//!
//! `SPILLWAY_MONEY_EVENTS=100000` makes it as long as that; `SPILLWAY_MONEY_SEED` repeats what is drawn,
//! not how the consumers meet.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rust_decimal::Decimal;
use serde_json::json;
use spillway::chargeback::{Consumer, Delivered};
use spillway::config::Config;
use spillway::gateway::event::{Attempt, Kind, Outcome, Tokens, UsageEvent, UsageSource};
use spillway::gateway::time::Timestamp;
use spillway::store::ledger::Ledger;
use spillway::store::rejects::digest;
use spillway::store::sums::Sum;
use spillway::store::{Pages, Range, Row, Store, StoreError, Table};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::azurite::{Azurite, emulator};
use crate::gateway::OPEN;

/// Prices of two models; a third has none.
const CONFIG: &str = r#"
[[backend]]
name = "a"
endpoint = "http://127.0.0.1:9"
[[backend.deployment]]
name = "gpt-4o"
kind = "payg"
[[backend.deployment]]
name = "odd"
kind = "payg"
[[backend.deployment]]
name = "no-such-model"
kind = "payg"
[[backend]]
name = "p"
endpoint = "http://127.0.0.1:9"
[[backend.deployment]]
name = "gpt-4o"
kind = "ptu"
[[price]]
model = "gpt-4o"
input = "2.50"
output = "10"
[[price]]
model = "odd"
input = "0.123457"
output = "1.000001"
"#;

/// Whose price it is: the deployment's that was billed, else the one's that answered.
fn payer(event: &UsageEvent) -> Option<Kind> {
    let billed = event.attempts.iter().rfind(|attempt| attempt.billed);
    billed.map_or(event.kind, |attempt| Some(attempt.kind))
}

/// What a call costs in units of 10^-15: another arithmetic than the program's.
fn reckoned(event: &UsageEvent) -> Option<i128> {
    let (input, output) = match (payer(event), &*event.model) {
        (Some(Kind::Ptu), _) => return None,
        (_, "gpt-4o") => (2_500_000_000, 10_000_000_000),
        (_, "odd") => (123_457_000, 1_000_001_000),
        _ => return None,
    };
    Some(i128::from(event.tokens.input) * input + i128::from(event.tokens.output) * output)
}

const DAY: u64 = 24 * 3_600_000;

fn event(number: u64, random: &mut fastrand::Rng) -> UsageEvent {
    let (backend, model, kind) = random
        .choice([
            ("a", "gpt-4o", Kind::Payg),
            ("a", "odd", Kind::Payg),
            ("a", "no-such-model", Kind::Payg),
            ("p", "gpt-4o", Kind::Ptu),
        ])
        .unwrap();
    UsageEvent {
        id: format!("{number:010}{:016x}", random.u64(..)),
        // Two hours of the last two days of a month and the first of the next.
        time: Timestamp::from_unix_ms(
            1_795_910_400_000 + random.u64(0..3) * DAY + random.u64(0..DAY / 12),
        ),
        app: ["portal", "nightly", "o'brien & sons"][random.usize(0..3)].into(),
        backend: backend.into(),
        deployment: model.into(),
        model: model.into(),
        kind: Some(kind),
        status: 200,
        outcome: Outcome::Completed,
        spilled: kind == Kind::Payg && random.u32(0..4) == 0,
        usage: UsageSource::Reported,
        tokens: Tokens {
            input: random.u64(0..200_000),
            output: random.u64(0..20_000),
            ..Tokens::default()
        },
        attempts: attempts(random),
        ..UsageEvent::default()
    }
}

/// Of every eighth call that the PTU worked on it while its client left, after another had failed: the
/// event says that pay-as-you-go answered.
fn attempts(random: &mut fastrand::Rng) -> Vec<Attempt> {
    if random.u32(0..8) > 0 {
        return Vec::new();
    }
    let attempt = |backend: &str, kind, billed| Attempt {
        backend: backend.into(),
        deployment: "gpt-4o".into(),
        kind,
        status: None,
        error: Some("reset".into()),
        after_ms: 0,
        ms: 1,
        billed,
    };
    vec![
        attempt("a", Kind::Payg, false),
        attempt("p", Kind::Ptu, true),
    ]
}

/// What stands between the store and Azurite: it cuts connections off before a request goes
/// through and after it was answered, says 503, and lets some answers take too long.
struct Faults {
    address: SocketAddr,
    active: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
}

impl Faults {
    async fn before(to: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let faults = Self {
            address: listener.local_addr().unwrap(),
            active: Arc::new(AtomicBool::new(true)),
            count: Arc::default(),
        };
        let (active, count) = (Arc::clone(&faults.active), Arc::clone(&faults.count));
        tokio::spawn(async move {
            let mut seeds = fastrand::Rng::with_seed(seed);
            while let Ok((client, _)) = listener.accept().await {
                let random = seeds.fork();
                tokio::spawn(pass_on(
                    client,
                    to,
                    random,
                    Arc::clone(&active),
                    Arc::clone(&count),
                ));
            }
        });
        faults
    }
}

async fn pass_on(
    mut client: TcpStream,
    to: SocketAddr,
    mut random: fastrand::Rng,
    active: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
) {
    let Ok(mut server) = TcpStream::connect(to).await else {
        return;
    };
    let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    // Decided once a request, with its first bytes.
    let mut fault = None;
    let mut is_new = true;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(n @ 1..) = read else { return };
                if is_new {
                    is_new = false;
                    fault = active.load(SeqCst).then(|| random.u32(0..10_000));
                    if matches!(fault, Some(0..152)) {
                        count.fetch_add(1, SeqCst);
                    }
                }
                match fault {
                    Some(0..50) => return,
                    Some(50..100) => {
                        let busy = b"HTTP/1.1 503 Server Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                        let _ = client.write_all(busy).await;
                        return;
                    }
                    _ => {}
                }
                if server.write_all(&asked[..n]).await.is_err() { return }
            }
            read = server.read(&mut answered) => {
                let Ok(n @ 1..) = read else { return };
                is_new = true;
                match fault {
                    // It is done, and nobody hears of it.
                    Some(100..150) => return,
                    // Longer than the store waits.
                    Some(150..152) => tokio::time::sleep(Duration::from_secs(11)).await,
                    _ => {}
                }
                if client.write_all(&answered[..n]).await.is_err() { return }
            }
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// How far from its place an event comes, mostly. Who writes ids writes them in order of time.
const NEAR: u64 = 2000;

/// Everything that is delivered, in order: each event at least once, some more often, near their places or,
/// of what is delivered again, a tenth anywhere; and rubbish.
fn deliveries(
    events: &[UsageEvent],
    random: &mut fastrand::Rng,
) -> (Vec<Delivered>, HashSet<String>) {
    let (mut all, mut rubbish) = (Vec::new(), HashSet::new());
    let count = u64::try_from(events.len()).unwrap();
    for (number, event) in (0..).zip(events) {
        let body = serde_json::to_vec(event).unwrap();
        for again in 0..random.choice([1, 1, 1, 2, 3]).unwrap() {
            let good = Delivered {
                body: body.clone(),
                ..Delivered::default()
            };
            let is_late = again > 0 && random.u32(0..10) == 0;
            let place = if is_late { random.u64(..count) } else { number };
            all.push((place + random.u64(..NEAR), good));
        }
        if random.u32(0..100) == 0 {
            let bad = Delivered {
                body: format!("{{\"id\":{number}").into_bytes(),
                place: format!("0|{number}"),
                enqueued: Some(event.time),
            };
            rubbish.insert(digest(&[bad.place.as_bytes(), &bad.body]));
            all.extend([(number, bad.clone()), (number + NEAR, bad)]);
        }
    }
    all.sort_by_key(|(place, _)| *place);
    (all.into_iter().map(|(_, one)| one).collect(), rubbish)
}

/// Takes batches of random sizes until all are taken, again where the table fails, as the host does.
/// Counts in `taken` what was; how often it failed.
async fn consume(
    consumer: Consumer,
    all: Vec<Delivered>,
    most: usize,
    taken: Arc<AtomicUsize>,
    mut random: fastrand::Rng,
) -> usize {
    let mut failures = 0;
    let mut rest = all.as_slice();
    while !rest.is_empty() {
        let (batch, left) = rest.split_at(random.usize(1..=rest.len().min(most)));
        loop {
            match consumer.take(batch).await {
                Ok(_) => break,
                Err(StoreError::Unavailable(_)) => failures += 1,
                Err(error) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(random.u64(1..50))).await;
        }
        taken.fetch_add(batch.len(), SeqCst);
        rest = left;
    }
    failures
}

/// Stops Azurite and starts it again when so many deliveries have been taken.
async fn restarts(mut azurite: Azurite, at: &[usize], taken: &AtomicUsize) -> Azurite {
    for at in at {
        while taken.load(SeqCst) < *at {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        azurite = tokio::task::spawn_blocking(|| azurite.restart())
            .await
            .unwrap();
    }
    azurite
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_money_adds_up_whatever_fails() {
    let count = setting("SPILLWAY_MONEY_EVENTS", 1000);
    let seed = setting("SPILLWAY_MONEY_SEED", fastrand::u64(..));
    eprintln!("SPILLWAY_MONEY_SEED={seed} SPILLWAY_MONEY_EVENTS={count}");
    let begun = Instant::now();
    let mut random = fastrand::Rng::with_seed(seed);
    let events: Vec<UsageEvent> = (0..count)
        .map(|number| event(number, &mut random))
        .collect();
    let (all, rubbish) = deliveries(&events, &mut random);
    let folder = tempfile::tempdir().unwrap();
    let azurite = Azurite::start_in(folder.path());
    let faults = Faults::before(azurite.address, random.u64(..)).await;
    let config = Config::parse(&format!("{OPEN}{CONFIG}"), "test", &|_| None).unwrap();
    let mut at: Vec<usize> = (0..2 + count / 25_000)
        .map(|_| random.usize(..all.len() * 9 / 10))
        .collect();
    at.sort_unstable();
    // Each delivery goes to any of them, so that they meet at the same events and sums.
    let mut shares = [const { Vec::new() }; 4];
    for one in &all {
        shares[random.usize(..4)].push(one.clone());
    }
    let most = (all.len() / 100).clamp(100, 1000);
    let taken = Arc::new(AtomicUsize::new(0));
    let mut consumers = JoinSet::new();
    for share in shares {
        // An instance of its own: nothing is shared but the table.
        let store: Arc<dyn Store> = Arc::new(emulator(faults.address));
        let consumer = Consumer::new(&config, Arc::new(Ledger::new(store)));
        let (taken, random) = (Arc::clone(&taken), random.fork());
        consumers.spawn(consume(consumer, share, most, taken, random));
    }
    let azurite = restarts(azurite, &at, &taken).await;
    let failures: usize = consumers.join_all().await.into_iter().sum();
    faults.active.store(false, SeqCst);
    eprintln!(
        "{} deliveries of {count} events, {} faults, {} restarts, {failures} batches failed and came again, {} s",
        all.len(),
        faults.count.load(SeqCst),
        at.len(),
        begun.elapsed().as_secs()
    );
    adds_up(&azurite.store(), &events, &rubbish).await;
}

async fn adds_up(store: &dyn Store, events: &[UsageEvent], rubbish: &HashSet<String>) {
    let rows = Pages::new(store, Table::Chargeback, Range::all())
        .rest()
        .await
        .unwrap();
    let mut days: BTreeMap<&str, Vec<&UsageEvent>> = BTreeMap::new();
    let keys: HashMap<&str, String> = events
        .iter()
        .map(|event| {
            (
                &*event.id,
                spillway::store::chargeback::key(event).partition,
            )
        })
        .collect();
    for event in events {
        days.entry(&keys[&*event.id]).or_default().push(event);
    }
    for (day, events) in days {
        let of = |prefix: &str| -> Vec<&Row> {
            let mine = rows.iter().filter(|row| row.key.partition == day);
            mine.filter(|row| row.key.row.starts_with(prefix)).collect()
        };
        let sum = of("sum|").into_iter().fold(Sum::default(), |all, row| {
            all.plus(&Sum::read(row).unwrap()).unwrap()
        });
        let total = |count: fn(&UsageEvent) -> u64| events.iter().map(|e| count(e)).sum::<u64>();
        let cost = |spilled: bool| {
            let these = events.iter().filter(|event| event.spilled || !spilled);
            let units: i128 = these.filter_map(|event| reckoned(event)).sum();
            Decimal::from_i128_with_scale(units, 15)
        };
        assert_eq!(sum.calls, total(|_| 1), "{day}");
        assert_eq!(sum.tokens.input, total(|e| e.tokens.input), "{day}");
        assert_eq!(sum.tokens.output, total(|e| e.tokens.output), "{day}");
        assert_eq!(sum.spilled_calls, total(|e| e.spilled.into()), "{day}");
        assert_eq!(
            sum.unpriced_calls,
            total(|e| {
                let has_price = payer(e) == Some(Kind::Ptu) || &*e.model != "no-such-model";
                (!has_price).into()
            }),
            "{day}"
        );
        assert_eq!(
            (sum.cost, sum.spilled_cost),
            (cost(false), cost(true)),
            "{day}"
        );
        let ids: HashSet<&str> = of("call|")
            .iter()
            .map(|row| row.fields.get_text("id"))
            .collect();
        let expected: HashSet<&str> = events.iter().map(|event| &*event.id).collect();
        assert_eq!(
            (of("call|").len(), &ids),
            (events.len(), &expected),
            "{day}"
        );
        let shown = of("call|")
            .into_iter()
            .map(|row| row.fields.get_text("cost"));
        let shown = shown.filter(|cost| !cost.is_empty());
        let shown: Decimal = shown
            .map(|cost| Decimal::from_str_exact(cost).unwrap())
            .sum();
        assert_eq!(
            shown, sum.cost,
            "the rows shown add up to the total shown: {day}"
        );
        let weighted: u64 = of("ptu|")
            .into_iter()
            .map(|row| Sum::read(row).unwrap().weighted)
            .sum();
        let at_ptu = |e: &UsageEvent| match payer(e) {
            Some(Kind::Ptu) => e.tokens.input + 4 * e.tokens.output,
            _ => 0,
        };
        assert_eq!(weighted, total(at_ptu), "{day}");
    }
    let rejects = Pages::new(store, Table::Rejects, Range::all())
        .rest()
        .await
        .unwrap();
    let rejects: HashSet<String> = rejects.into_iter().map(|row| row.key.row).collect();
    assert_eq!(&rejects, rubbish);
    // So that a test that tests nothing is noticed.
    assert!(!rubbish.is_empty() && json!(rejects.len()) != json!(0));
}
