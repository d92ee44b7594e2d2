use std::future::poll_fn;
use std::pin::pin;
use std::sync::LazyLock;

use rust_decimal::Decimal;

use super::render::{About, to_csv, to_json, to_table};
use super::*;
use crate::gateway::bill::{Figures, IDLE, Line};
use crate::store::embedded::Embedded;

/// 2026-11-23T17:06:30.000Z.
const NOW: Timestamp = Timestamp::from_unix_ms(1_795_453_590_000);

static NO_NAMES: LazyLock<Names> = LazyLock::new(Names::default);

fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn about() -> About<'static> {
    About {
        period: Period::read(Span::default(), NOW).unwrap(),
        currency: "USD",
        names: &NO_NAMES,
    }
}

fn line(of: &[&str], payg: &str, ptu: &str) -> Line {
    Line {
        of: of.iter().map(|of| Arc::from(*of)).collect(),
        is_idle: of.first() == Some(&IDLE),
        figures: Figures {
            calls: 1,
            cost: dec(payg),
            ..Figures::default()
        },
        ptu_cost: dec(ptu),
        ..Line::default()
    }
}

fn bill(by: &[By], lines: Vec<Line>) -> Bill {
    let mut total = Line::default();
    for line in &lines {
        total.figures.add(&line.figures).unwrap();
        total.ptu_cost += line.ptu_cost;
    }
    Bill {
        by: by.to_vec(),
        lines,
        total,
    }
}

/// The rows of a table, without what stands above them.
fn rows(table: &str) -> Vec<Vec<&str>> {
    let lines = table.lines().skip(2).take_while(|line| !line.is_empty());
    lines
        .map(|line| line.split_whitespace().collect())
        .collect()
}

#[test]
fn a_tables_rows_add_up_to_its_total_although_they_are_rounded() {
    let third = "33.333333333333";
    let thirds = ["a", "b", "c"].map(|app| line(&[app], "0.004", third));
    let table = to_table(&bill(&[By::App], thirds.into()), about(), 2).unwrap();
    let rows = rows(&table);
    let cells = |column: usize| -> Vec<Decimal> {
        let cells = rows[1..].iter().map(|row| row[row.len() - column]);
        cells.map(dec).collect()
    };
    for column in 1..=3 {
        let cells = cells(column);
        let (total, parts) = cells.split_last().unwrap();
        assert_eq!(parts.iter().sum::<Decimal>(), *total, "{table}");
    }
    assert_eq!(rows[4][6..], ["0.01", "100.00", "100.01"]);
}

#[test]
fn idle_cost_is_told_in_a_bill_that_is_not_broken_down() {
    let mut idle = line(&[], "0", "7");
    idle.is_idle = true;
    let table = to_table(&bill(&[], vec![line(&[], "1", "2"), idle]), about(), 2).unwrap();
    let rows = rows(&table);
    assert_eq!(rows[2][0], IDLE, "{table}");
    assert_eq!(rows[3].last(), Some(&"10.00"));
}

#[test]
fn a_table_says_what_is_missing_in_the_cost() {
    let mut unpriced = line(&["a"], "0", "0");
    (unpriced.figures.unpriced_calls, unpriced.unpriced_weighted) = (3, 9);
    let mut bill = bill(&[By::App], vec![unpriced]);
    bill.total.unpriced_weighted = 9;
    let table = to_table(&bill, about(), 2).unwrap();
    assert!(table.contains("3 calls have no price"), "{table}");
    assert!(table.contains("9 weighted tokens"), "{table}");
}

#[test]
fn amounts_are_exact_in_csv_and_json_and_text_there() {
    let bill = bill(
        &[By::App, By::Day],
        vec![line(&["=a", "2026-11-23"], "0.000001", "33.333333333333")],
    );
    let csv = to_csv(&bill, about()).unwrap();
    let row = csv.lines().nth(1).unwrap();
    assert!(row.starts_with("\"'=a\",2026-11-23,false,1,"), "{row}");
    assert!(
        row.ends_with(",0.000001,33.333333333333,33.333334333333,USD,"),
        "{row}"
    );
    let json = to_json(&bill, about(), None).unwrap();
    assert_eq!(json["lines"][0]["cost"], "33.333334333333");
    assert_eq!(json["total"]["cost"], "33.333334333333");
    assert_eq!(
        (&json["from"], &json["to"]),
        (&"2026-11-01".into(), &"2026-11-30".into())
    );
}

#[test]
fn a_period_is_a_month_or_some_days() {
    let read = |month, from, to| Period::read(Span { month, from, to }, NOW);
    let days = |period: Period| (period.from(), period.to(), period.days().count());
    let february = read(Some("2028-02"), None, None).unwrap();
    assert_eq!(
        days(february),
        ("2028-02-01".into(), "2028-02-29".into(), 29)
    );
    let across = read(None, Some("2026-11-30"), Some("2027-01-01")).unwrap();
    assert_eq!(days(across).2, 33);
    let months: Vec<String> = across.months().map(|month| month.to_string()).collect();
    assert_eq!(months, ["2026-11", "2026-12", "2027-01"]);
    assert!(read(Some("2026-11"), Some("2026-11-01"), None).is_err());
    assert!(read(None, Some("2026-11-01"), None).is_err());
    assert!(read(None, Some("2026-11-02"), Some("2026-11-01")).is_err());
}

#[test]
fn no_period_that_can_be_named_has_more_than_366_days() {
    fn read(month: Option<&str>, days: Option<(&str, &str)>) -> Result<Period, String> {
        let (from, to) = days.unzip();
        Period::read(Span { month, from, to }, NOW)
    }
    let names =
        (0..=9999).flat_map(|year| (1..=12).map(move |month| format!("{year:04}-{month:02}")));
    let months = names.filter_map(|name| read(Some(&name), None).ok());
    let days: Vec<usize> = months
        .map(|period| period.days().take(400).count())
        .collect();
    assert_eq!(days.len(), (9999 - 1970) * 12);
    assert!(days.iter().all(|days| (28..=31).contains(days)));
    let between = |from, to| read(None, Some((from, to))).map(|period| period.days().count());
    assert_eq!(between("2027-03-01", "2028-02-29"), Ok(366));
    assert!(between("2027-02-28", "2028-02-29").is_err());
    assert_eq!(between("9999-01-01", "9999-12-31"), Ok(365));
    let last = read(None, Some(("9999-12-31", "9999-12-31"))).unwrap();
    assert_eq!(last.months().count(), 1);
}

#[tokio::test]
async fn a_bill_of_a_long_period_lets_others_work_each_day() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    let span = Span {
        month: None,
        from: Some("2027-03-01"),
        to: Some("2028-02-29"),
    };
    let period = Period::read(span, NOW).unwrap();
    let prices = Prices::default();
    let mut made = pin!(make(&store, &prices, period, Wanted::default(), NOW));
    let mut pauses = 0;
    let bill = poll_fn(|context| {
        let polled = made.as_mut().poll(context);
        pauses += usize::from(polled.is_pending());
        polled
    });
    assert_eq!(bill.await, Ok(Bill::default()));
    assert!(pauses >= 366, "{pauses}");
}
