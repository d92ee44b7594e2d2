use super::super::deployment::{DeploymentSpec, MarkReason};
use super::super::event::Kind;
use super::*;

mod simulation;

const MAX_MS: u64 = 300_000;

fn deployment(backend: &str) -> Arc<Deployment> {
    Arc::new(Deployment::new(DeploymentSpec {
        backend: backend.into(),
        name: "gpt-4o".into(),
        kind: Kind::Ptu,
        tier: 1,
        weight: 1,
        region: None,
        apps: Vec::new(),
    }))
}

/// Rounds of turns begin there, whatever their length in the tests.
fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_800_000_000_000 + ms)
}

/// An instance with its own view of one deployment.
struct Instance {
    board: Board,
    all: Vec<Arc<Deployment>>,
}

impl Instance {
    fn new(id: &str) -> Self {
        Self {
            board: Board::new(id.to_owned()),
            all: vec![deployment("ptu")],
        }
    }

    fn meets_429(&self, ms: u64, now: Timestamp) {
        self.all[0].set_mark(MarkReason::Throttled, ms, now);
    }

    /// The row that it writes.
    fn tells(&mut self, now: Timestamp) -> Option<Row> {
        let row = self.board.news(&self.all, now)?;
        self.board.told(&row);
        Some(row)
    }

    fn hears(&self, rows: &[Row], now: Timestamp) -> Learnt {
        self.board.learn(rows, &self.all, MAX_MS, now)
    }

    fn marked_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.all[0].mark(now).map(|mark| mark.until)
    }
}

#[test]
fn what_one_instance_met_keeps_the_others_away_as_long() {
    let (mut a, b) = (Instance::new("a"), Instance::new("b"));
    assert_eq!(a.tells(at(0)), None, "there is nothing to tell");
    a.meets_429(10_000, at(0));
    let row = a.tells(at(200)).unwrap();
    b.hears(&[row], at(700));
    // It is the second of two, who asks 50 ms after the first.
    assert_eq!(b.marked_until(at(700)), Some(at(10_050)));
    let mark = b.all[0].mark(at(700)).unwrap();
    assert_eq!(mark.reason, MarkReason::Throttled);
}

#[test]
fn what_was_heard_is_not_told_again() {
    let (mut a, mut b) = (Instance::new("a"), Instance::new("b"));
    a.meets_429(10_000, at(0));
    let row = a.tells(at(0)).unwrap();
    b.hears(&[row], at(300));
    assert_eq!(b.tells(at(300)), None);
}

#[test]
fn only_throttles_are_told() {
    let mut a = Instance::new("a");
    a.all[0].set_mark(MarkReason::Failed, 10_000, at(0));
    assert_eq!(a.tells(at(1)), None);
    a.all[0].set_mark(MarkReason::Misconfigured, 20_000, at(1));
    assert_eq!(a.tells(at(2)), None);
}

#[test]
fn a_mark_that_was_told_is_news_again_only_when_it_is_longer_or_fades() {
    let mut a = Instance::new("a");
    a.meets_429(4, at(0));
    assert!(a.tells(at(10)).is_some(), "that it is full is news");
    a.meets_429(4, at(100));
    assert_eq!(a.tells(at(260)), None, "the others know");
    assert!(a.tells(at(510)).is_some(), "they would soon forget it");
    a.meets_429(5_000, at(600));
    assert!(a.tells(at(610)).is_some(), "much longer");
    a.meets_429(5_000, at(900));
    assert_eq!(a.tells(at(910)), None, "a little longer");
    assert_eq!(a.tells(at(8_000)), None, "it has room again");
}

#[test]
fn clocks_that_differ_do_little_harm() {
    let (mut a, b) = (Instance::new("a"), Instance::new("b"));
    a.meets_429(10_000, at(0));
    let mut row = a.tells(at(0)).unwrap();
    row.written = at(SKEW_MS);
    b.hears(&[row.clone()], at(0));
    let until = b.marked_until(at(0));
    assert_eq!(until, Some(at(10_050)), "as if it were written now");
    let c = Instance::new("c");
    row.written = at(SKEW_MS + 1);
    c.hears(&[row.clone()], at(0));
    assert_eq!(c.marked_until(at(0)), None, "too far ahead");
    c.hears(&[row], at(20_000));
    assert_eq!(c.marked_until(at(20_000)), None, "it is over");
}

#[test]
fn no_mark_lasts_longer_than_this_instance_lets_its_own() {
    let (mut a, b) = (Instance::new("a"), Instance::new("b"));
    a.meets_429(86_400_000, at(0));
    let row = a.tells(at(0)).unwrap();
    b.board.learn(&[row], &b.all, 10_000, at(100));
    assert_eq!(b.marked_until(at(100)), Some(at(10_050)));
}

#[test]
fn turns_go_by_the_ids_of_those_that_find_it_full() {
    let mut ends = Vec::new();
    let mut fleet: Vec<Instance> = ["a", "b", "c"].map(Instance::new).into();
    let mut rows = Vec::new();
    for instance in &mut fleet {
        instance.meets_429(4, at(0));
        rows.extend(instance.tells(at(1)));
    }
    let of_another = Row {
        instance: "0".into(),
        written: at(1),
        full: vec![Full {
            backend: "payg".into(),
            deployment: "gpt-4o".into(),
            left_ms: 4,
        }],
    };
    rows.push(of_another);
    for instance in &fleet {
        instance.hears(&rows, at(500));
        instance.meets_429(4, at(600));
        ends.push(instance.marked_until(at(600)).unwrap());
    }
    // It relapsed: 650, which is 50 ms into a round of 150.
    assert_eq!(ends, [at(750), at(650), at(700)]);
    let a = &fleet[0];
    a.hears(&rows, at(1 + 4 + RELAPSE_MS + 1));
    a.meets_429(4, at(5_000));
    assert_eq!(a.marked_until(at(5_000)), Some(at(5_004)), "alone again");
}

#[test]
fn without_the_store_it_is_as_if_there_were_no_others() {
    let mut other = Instance::new("0");
    let a = Instance::new("a");
    other.meets_429(1_000, at(0));
    let row = other.tells(at(0)).unwrap();
    a.hears(&[row], at(100));
    a.board.forget_others(&a.all, at(200));
    assert_eq!(a.marked_until(at(200)), Some(at(1_050)), "that stays");
    a.meets_429(7, at(3_001));
    assert_eq!(a.marked_until(at(3_001)), Some(at(3_008)));
}

#[test]
fn old_rows_may_be_deleted_and_many_are_read_less_often() {
    let a = Instance::new("a");
    let row = |instance: u64, written| Row {
        instance: instance.to_string(),
        written: at(written),
        full: Vec::new(),
    };
    let now = at(FORGOTTEN_MS + 1);
    let learnt = a.hears(&[row(0, 0), row(1, FORGOTTEN_MS)], now);
    assert_eq!(learnt.forgotten, ["0"]);
    assert_eq!(learnt.next_ms, INTERVAL_MS);
    let many: Vec<Row> = (0..99).map(|i| row(i, FORGOTTEN_MS)).collect();
    assert_eq!(a.hears(&many, now).next_ms, 5_000);
    assert_eq!(interval_ms(u64::MAX), LONGEST_INTERVAL_MS);
}

#[test]
fn an_instance_listens_for_a_minute_after_its_last_call() {
    assert!(is_listening(at(0), at(LINGER_MS)));
    assert!(!is_listening(at(0), at(LINGER_MS + 1)));
}
