//! Against an independent reckoning: whatever comes in whatever order, how often, from however many
//! ledgers, each event counts once.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use proptest::prelude::*;
use rust_decimal::Decimal;

use super::transaction::COST_DIGITS;
use super::*;
use crate::gateway::event::{Attempt, Cache, Kind, Outcome, Saving, Tokens, UsageSource};
use crate::gateway::time::Timestamp;
use crate::store::embedded::Embedded;
use crate::store::sums::Sum;
use crate::store::{Change, Fields, Page, Write, encode_key};

/// A store that counts, and fails where it is told to: before it writes, or after.
#[derive(Debug)]
struct Faulty {
    store: Embedded,
    reads: AtomicUsize,
    writes: AtomicUsize,
    fails: SyncMutex<fastrand::Rng>,
    percent: u32,
}

impl Faulty {
    fn fails(&self) -> bool {
        self.fails.lock().unwrap().u32(0..100) < self.percent
    }
}

fn down<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("as the test wants it".into()))
}

impl Store for Faulty {
    fn get<'a>(&'a self, table: Table, key: &'a Key) -> Answer<'a, Option<Row>> {
        self.reads.fetch_add(1, SeqCst);
        self.store.get(table, key)
    }

    fn read<'a>(&'a self, table: Table, range: &'a Range) -> Answer<'a, Page> {
        self.reads.fetch_add(1, SeqCst);
        if self.fails() {
            return Box::pin(async { down() });
        }
        self.store.read(table, range)
    }

    fn write<'a>(&'a self, table: Table, partition: &'a str, writes: Vec<Write>) -> Answer<'a, ()> {
        self.writes.fetch_add(1, SeqCst);
        let (before, after) = (self.fails(), self.fails());
        Box::pin(async move {
            if before {
                return down();
            }
            let written = self.store.write(table, partition, writes).await;
            if after { down() } else { written }
        })
    }
}

fn faulty(folder: &std::path::Path, seed: u64, percent: u32) -> Arc<Faulty> {
    Arc::new(Faulty {
        store: Embedded::open(folder).unwrap(),
        reads: AtomicUsize::new(0),
        writes: AtomicUsize::new(0),
        fails: SyncMutex::new(fastrand::Rng::with_seed(seed)),
        percent,
    })
}

/// A price for each model but one, with more digits than money has.
fn charge(event: &UsageEvent) -> Charge {
    let input = Decimal::from(event.tokens.input);
    let output = Decimal::from(event.tokens.output);
    let is_ptu = payer(event) == Some(Kind::Ptu);
    let weighted = event.tokens.input + event.tokens.output * 4;
    let cost = match (payer(event), &*event.model) {
        (Some(Kind::Ptu), _) | (_, "unknown") => None,
        (_, "gpt-4o") => Some(input * Decimal::new(25, 7) + output * Decimal::new(1, 5)),
        _ => Some((input + output) * Decimal::new(123_456_789, 20)),
    };
    Charge {
        is_unpriced: !is_ptu && cost.is_none(),
        weighted: if is_ptu { weighted } else { 0 },
        cost,
        saved: Decimal::from(event.saved_tokens()) * Decimal::new(1, 7),
    }
}

/// Whose price it is: that of the attempt that was billed, else of the deployment that answered.
fn payer(event: &UsageEvent) -> Option<Kind> {
    let billed = event.attempts.iter().rfind(|attempt| attempt.billed);
    billed.map_or(event.kind, |attempt| Some(attempt.kind))
}

/// No attempts, as others report; or one that was billed, which need not be at the deployment that is
/// said to have answered, between others.
fn attempts(random: &mut fastrand::Rng) -> Vec<Attempt> {
    if random.bool() {
        return Vec::new();
    }
    let billed = random.usize(0..3);
    let attempt = |(at, kind): (usize, Kind)| Attempt {
        backend: "b".into(),
        deployment: ["x", "y", "z"][at].into(),
        kind,
        status: Some(429),
        error: None,
        after_ms: 0,
        ms: 1,
        billed: at == billed,
    };
    let kinds = [0; 3].map(|_| random.choice([Kind::Ptu, Kind::Payg]).unwrap());
    kinds.into_iter().enumerate().map(attempt).collect()
}

const DAY: u64 = 24 * 3_600_000;

fn event(id: u64, random: &mut fastrand::Rng) -> UsageEvent {
    let models = ["gpt-4o", "o3", "unknown", "a/b|c"];
    let kinds = [None, Some(Kind::Ptu), Some(Kind::Payg)];
    let kind = random.choice(kinds).unwrap();
    UsageEvent {
        id: format!("{id:026}"),
        time: Timestamp::from_unix_ms(1_795_392_000_000 + random.u64(0..2 * DAY)),
        app: ["portal", "o'brien", "a|b"][random.usize(0..3)].into(),
        model: random.choice(models).unwrap().into(),
        kind,
        backend: if kind.is_some() { "b" } else { "" }.into(),
        deployment: ["x", "y"][random.usize(0..2)].into(),
        status: random.choice([200, 200, 200, 429, 499]).unwrap(),
        outcome: Outcome::Completed,
        spilled: random.bool(),
        usage: UsageSource::Reported,
        tokens: Tokens {
            input: random.u64(0..100_000),
            output: random.u64(0..10_000),
            ..Tokens::default()
        },
        cache: random
            .choice([None, Some(Cache::Hit), Some(Cache::Coalesced)])
            .unwrap(),
        saving: random.bool().then(|| {
            let tokens = Tokens {
                output: random.u64(0..10_000),
                ..Tokens::default()
            };
            Box::new(Saving {
                tokens,
                ..Saving::default()
            })
        }),
        attempts: attempts(random),
        ..UsageEvent::default()
    }
}

/// What all of a partition's sums come to, and its calls, by their fields.
async fn read(store: &dyn Store, partition: &str) -> (Sum, Sum, Vec<Row>) {
    let of = |prefix| Pages::new(store, Table::Chargeback, Range::of(partition, prefix)).rest();
    let total = |rows: Vec<Row>| {
        let sums = rows.iter().map(|row| Sum::read(row).unwrap());
        sums.fold(Sum::default(), |all, one| all.plus(&one).unwrap())
    };
    let (models, hours) = (of(sums::SUM).await.unwrap(), of(sums::PTU).await.unwrap());
    (
        total(models),
        total(hours),
        of(chargeback::CALL).await.unwrap(),
    )
}

fn reckoned<'a>(events: impl Iterator<Item = &'a UsageEvent>) -> Sum {
    events.fold(Sum::default(), |mut sum, event| {
        let Charge { cost, weighted, .. } = charge(event);
        let spilled = u64::from(event.spilled);
        sum.calls += 1;
        sum.failed_calls += u64::from(event.status == 429);
        sum.spilled_calls += spilled;
        sum.unpriced_calls += u64::from(cost.is_none() && payer(event) != Some(Kind::Ptu));
        sum.tokens.input += event.tokens.input;
        sum.tokens.output += event.tokens.output;
        sum.spilled_tokens += spilled * (event.tokens.input + event.tokens.output);
        let cost = cost.unwrap_or_default().round_dp(COST_DIGITS);
        sum.cost += cost;
        sum.spilled_cost += cost * Decimal::from(spilled);
        sum.weighted += weighted;
        sum.hit_calls += u64::from(event.cache == Some(Cache::Hit));
        sum.coalesced_calls += u64::from(event.cache == Some(Cache::Coalesced));
        sum.saved_tokens += event.saved_tokens();
        sum.saved_cost += charge(event).saved;
        sum
    })
}

async fn adds_up(store: &dyn Store, events: &[UsageEvent]) {
    let mut days: BTreeMap<String, Vec<&UsageEvent>> = BTreeMap::new();
    for event in events {
        days.entry(chargeback::key(event).partition)
            .or_default()
            .push(event);
    }
    for (day, events) in days {
        let (models, hours, rows) = read(store, &day).await;
        assert_eq!(models, reckoned(events.iter().copied()), "{day}");
        let ptu = events.iter().copied();
        let ptu = ptu.filter(|event| payer(event) == Some(Kind::Ptu));
        assert_eq!(hours, reckoned(ptu), "{day}");
        assert_eq!(hours.weighted, models.weighted, "no weight without an hour");
        let shown = rows
            .iter()
            .filter(|row| row.fields.get_text("kind") == "ptu");
        let shown = shown.map(|row| row.fields.get_number("weighted_tokens"));
        assert_eq!(shown.sum::<u64>(), hours.weighted, "{day}");
        let keys: HashSet<&str> = rows.iter().map(|row| &*row.key.row).collect();
        assert_eq!(
            (rows.len(), keys.len()),
            (events.len(), events.len()),
            "{day}"
        );
        let shown = rows.iter().map(|row| row.fields.get_text("cost"));
        let shown = shown.filter(|cost| !cost.is_empty());
        let shown: Decimal = shown
            .map(|cost| Decimal::from_str_exact(cost).unwrap())
            .sum();
        assert_eq!(
            shown, models.cost,
            "the rows shown add up to the total shown"
        );
    }
}

/// Records a batch until it is recorded.
async fn insist(ledger: &Ledger, batch: &[&UsageEvent]) -> Recorded {
    loop {
        match ledger.record(batch, &charge).await {
            Ok(recorded) => return recorded,
            Err(StoreError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn sums_are_those_of_the_events_however_they_come(seed: u64, percent in 0_u32..8) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(come_anyhow(seed, percent));
    }
}

async fn come_anyhow(seed: u64, percent: u32) {
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let store = faulty(folder.path(), seed, percent);
    let events: Vec<UsageEvent> = (0..400).map(|id| event(id, &mut random)).collect();
    let mut deliveries: Vec<&UsageEvent> = events.iter().collect();
    deliveries.extend((0..200).map(|_| &events[random.usize(0..events.len())]));
    random.shuffle(&mut deliveries);
    let mut batches = Vec::new();
    let mut rest = deliveries.as_slice();
    while !rest.is_empty() {
        let (batch, left) = rest.split_at(random.usize(1..=rest.len().min(150)));
        batches.push(batch);
        rest = left;
    }
    let ledgers = [0; 3].map(|_| Ledger::new(Arc::clone(&store) as Arc<dyn Store>));
    let works: Vec<Pin<Box<dyn Future<Output = Vec<Recorded>>>>> = ledgers
        .iter()
        .enumerate()
        .map(
            |(number, ledger)| -> Pin<Box<dyn Future<Output = Vec<Recorded>>>> {
                let mine: Vec<_> = batches.iter().skip(number).step_by(3).collect();
                Box::pin(async move {
                    let mut all = Vec::new();
                    for batch in mine {
                        all.push(insist(ledger, batch).await);
                    }
                    all
                })
            },
        )
        .collect();
    let mut works: stream::FuturesUnordered<_> = works.into_iter().collect();
    while let Some(recorded) = works.next().await {
        assert!(recorded.iter().all(|one| one.refused.is_empty()));
    }
    adds_up(&store.store, &events).await;
}

#[tokio::test]
async fn what_was_counted_now_is_told_from_what_was_counted_before() {
    let folder = tempfile::tempdir().unwrap();
    let store = faulty(folder.path(), 1, 0);
    let ledger = Ledger::new(Arc::clone(&store) as Arc<dyn Store>);
    let mut random = fastrand::Rng::with_seed(1);
    let mut new = |id| UsageEvent {
        time: Timestamp::from_unix_ms(1_795_392_000_000),
        app: "portal".into(),
        ..event(id, &mut random)
    };
    let events: Vec<UsageEvent> = (0..60).map(&mut new).collect();
    let odd: Vec<&UsageEvent> = events.iter().skip(1).step_by(2).collect();
    let first = ledger.record(&odd, &charge).await.unwrap();
    assert_eq!(first.counted.len(), 30);
    let mut all: Vec<&UsageEvent> = events.iter().collect();
    all.push(&events[0]);
    let second = ledger.record(&all, &charge).await.unwrap();
    assert_eq!(second.counted, (0..60).step_by(2).collect::<Vec<_>>());
    let mut duplicates = second.duplicates;
    duplicates.sort_unstable();
    let expected: Vec<usize> = (1..60).step_by(2).chain([60]).collect();
    assert_eq!(duplicates, expected);
}

#[tokio::test]
async fn a_batch_takes_a_read_and_a_write_and_a_redelivered_one_two_reads_and_a_write() {
    let folder = tempfile::tempdir().unwrap();
    let store = faulty(folder.path(), 1, 0);
    let ledger = Ledger::new(Arc::clone(&store) as Arc<dyn Store>);
    let events: Vec<UsageEvent> = (0..80)
        .map(|id| UsageEvent {
            id: format!("{id:026}"),
            app: "portal".into(),
            kind: Some(Kind::Ptu),
            ..UsageEvent::default()
        })
        .collect();
    let batch: Vec<&UsageEvent> = events.iter().collect();
    let trips = || (store.reads.swap(0, SeqCst), store.writes.swap(0, SeqCst));
    assert_eq!(
        ledger.record(&batch, &charge).await.unwrap().counted.len(),
        80
    );
    assert_eq!(trips(), (1, 2), "the index's row is written once");
    assert_eq!(
        ledger
            .record(&batch, &charge)
            .await
            .unwrap()
            .duplicates
            .len(),
        80
    );
    assert_eq!(trips(), (2, 1));
}

#[tokio::test]
async fn what_is_new_beside_what_was_counted_takes_two_reads_and_two_writes_in_the_same_shard() {
    let folder = tempfile::tempdir().unwrap();
    let store = faulty(folder.path(), 1, 0);
    let ledger = Ledger::new(Arc::clone(&store) as Arc<dyn Store>);
    let events: Vec<UsageEvent> = (0..60)
        .map(|id| UsageEvent {
            id: format!("{id:026}"),
            app: "portal".into(),
            ..UsageEvent::default()
        })
        .collect();
    let all: Vec<&UsageEvent> = events.iter().collect();
    ledger.record(&all[..40], &charge).await.unwrap();
    store.reads.store(0, SeqCst);
    store.writes.store(0, SeqCst);
    let recorded = ledger.record(&all[20..], &charge).await.unwrap();
    assert_eq!(
        (recorded.counted.len(), recorded.duplicates.len()),
        (20, 20)
    );
    let trips = (store.reads.load(SeqCst), store.writes.load(SeqCst));
    assert_eq!(trips, (2, 2));
    let range = Range::of("portal|1970-01-01", sums::SUM);
    let sums = Pages::new(&store.store, Table::Chargeback, range)
        .rest()
        .await
        .unwrap();
    assert_eq!(sums.len(), 1, "nobody else writes: there is no other shard");
    assert_eq!(Sum::read(&sums[0]).unwrap().calls, 60);
}

#[tokio::test]
async fn what_the_store_can_not_take_holds_up_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = faulty(folder.path(), 1, 0);
    let ledger = Ledger::new(Arc::clone(&store) as Arc<dyn Store>);
    let good = |id: &str| UsageEvent {
        id: id.into(),
        app: "portal".into(),
        ..UsageEvent::default()
    };
    let mut events: Vec<UsageEvent> = (0..20).map(|id| good(&format!("{id}"))).collect();
    // Its key is too long, which only shows when it is written.
    events[7].id = "x".repeat(600);
    events[8].tokens.input = u64::MAX;
    events[9].app = "".into();
    events[10].time = Timestamp::from_unix_ms(u64::MAX);
    let batch: Vec<&UsageEvent> = events.iter().collect();
    let recorded = ledger.record(&batch, &charge).await.unwrap();
    let mut refused: Vec<usize> = recorded.refused.iter().map(|(index, _)| *index).collect();
    refused.sort_unstable();
    assert_eq!(refused, [7, 8, 9, 10]);
    assert_eq!(recorded.counted.len(), 16);
    let (sum, _, rows) = read(&store.store, "portal|1970-01-01").await;
    assert_eq!((sum.calls, rows.len()), (16, 16));
}

#[tokio::test]
async fn sums_that_can_not_be_read_hold_up_no_other_apps_events() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Embedded::open(folder.path()).unwrap());
    let ledger = Ledger::new(Arc::clone(&store) as Arc<dyn Store>);
    let one = |id: &str, app: &str| UsageEvent {
        id: id.into(),
        app: app.into(),
        ..UsageEvent::default()
    };
    ledger
        .record(&[&one("1", "portal")], &charge)
        .await
        .unwrap();
    let day = "portal|1970-01-01";
    let rows = Pages::new(&*store, Table::Chargeback, Range::of(day, sums::SUM));
    for row in rows.rest().await.unwrap() {
        let edited = Write {
            row: row.key.row,
            change: Change::Upsert(row.fields.with(Fields::new().text("cost", "much"))),
        };
        store
            .write(Table::Chargeback, day, vec![edited])
            .await
            .unwrap();
    }
    let both = [one("2", "portal"), one("3", "nightly")];
    let both: Vec<&UsageEvent> = both.iter().collect();
    let recorded = ledger.record(&both, &charge).await.unwrap();
    assert_eq!(recorded.counted, [1]);
    let [(0, why)] = &*recorded.refused else {
        panic!("{recorded:?}")
    };
    assert!(why.contains("cost"), "{why}");
}

#[tokio::test]
async fn duplicates_are_found_also_where_their_ids_lie_far_apart() {
    let folder = tempfile::tempdir().unwrap();
    let store = faulty(folder.path(), 1, 0);
    let ledger = Ledger::new(Arc::clone(&store) as Arc<dyn Store>);
    let one = |id: u64| UsageEvent {
        id: format!("{id:06}"),
        app: "portal".into(),
        ..UsageEvent::default()
    };
    let events: Vec<UsageEvent> = (0..1500).map(one).collect();
    let all: Vec<&UsageEvent> = events.iter().collect();
    ledger.record(&all, &charge).await.unwrap();
    let apart: Vec<&UsageEvent> = events.iter().step_by(150).collect();
    let again = ledger.record(&apart, &charge).await.unwrap();
    assert_eq!((again.counted.len(), again.duplicates.len()), (0, 10));
}

#[tokio::test]
async fn an_apps_month_is_in_the_index() {
    let folder = tempfile::tempdir().unwrap();
    let store = faulty(folder.path(), 1, 0);
    let ledger = Ledger::new(Arc::clone(&store) as Arc<dyn Store>);
    let mut random = fastrand::Rng::with_seed(1);
    let events: Vec<UsageEvent> = (0..50).map(|id| event(id, &mut random)).collect();
    let batch: Vec<&UsageEvent> = events.iter().collect();
    ledger.record(&batch, &charge).await.unwrap();
    let range = Range::of("index|2026-11", "");
    let rows = Pages::new(&store.store, Table::Chargeback, range)
        .rest()
        .await
        .unwrap();
    let mut apps: Vec<&str> = rows.iter().map(|row| row.fields.get_text("app")).collect();
    apps.sort_unstable();
    assert_eq!(apps, ["a|b", "o'brien", "portal"]);
    assert!(
        rows.iter()
            .all(|row| row.key.row == encode_key(row.fields.get_text("app")))
    );
}
