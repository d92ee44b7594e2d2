//! One app's bill: what is asked of it, and what is read for it.

use spillway::billing::BillingError;
use spillway::gateway::bill::{Idle, Line};
use spillway::store::{Change, Fields, StoreError, Table, Write, chargeback};

use super::*;

#[tokio::test]
async fn a_month_that_no_other_follows_is_refused_at_once() {
    let (_folder, store) = embedded();
    let running = running(store).await;
    for more in ["", "&by=user", "&rows=true"] {
        let query = format!("month=9999-12{more}");
        let answer = running.get(&format!("/spillway/chargeback?{query}"));
        let answer = answer.header("api-key", "portal-key").timeout(PATIENCE);
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{query}");
        let body: Value = answer.json().await.unwrap();
        let said = "`9999-12` is no month; write it as 2026-11";
        assert_eq!(body["error"]["message"], said, "{query}");
    }
}

/// October 2026, and a moment after it.
fn october() -> (Period, Timestamp) {
    let span = Span {
        month: Some("2026-10"),
        ..Span::default()
    };
    let now = NINE.plus_ms(30 * 24 * 60 * MINUTE);
    (Period::read(span, now).unwrap(), now)
}

#[tokio::test]
async fn an_apps_bill_by_user_is_its_part_of_the_whole_one() {
    let (_folder, store) = embedded();
    let config = read(&config(""));
    let seed = fastrand::u64(..);
    record(&store, &config, &random_calls(seed)).await;
    let (period, now) = october();
    let by = [By::App, By::User, By::Model, By::Day];
    for idle in [Idle::OwnLine, Idle::Users] {
        let billing = Billing {
            idle,
            ..Billing::new(&config, Arc::clone(&store))
        };
        let whole = billing.bill(period, by.to_vec(), None, now).await.unwrap();
        for app in ["portal", "nightly", "=odd|app"] {
            let own = billing.bill(period, by.to_vec(), Some(app.into()), now);
            let own = own.await.unwrap();
            let part = whole.lines.iter().filter(|line| &*line.of[0] == app);
            let part: Vec<Line> = part.cloned().collect();
            assert!(
                part.iter().any(|line| !line.ptu_cost.is_zero()),
                "seed {seed}"
            );
            assert_eq!(own.lines, part, "seed {seed}: {app}");
        }
    }
}

#[tokio::test]
async fn an_apps_bill_by_user_reads_no_calls_of_others() {
    let (_folder, store) = embedded();
    let config = read(&config(""));
    let calls = example();
    record(&store, &config, &calls).await;
    // A call of another app that can't be read.
    let nightly = calls.iter().find(|call| &*call.app == "nightly").unwrap();
    let partition = chargeback::key(nightly).partition;
    let damaged = Write {
        row: "call|~".to_owned(),
        change: Change::Upsert(Fields::new().text("cost", "x")),
    };
    let written = store.write(Table::Chargeback, &partition, vec![damaged]);
    written.await.unwrap();
    let (period, now) = october();
    let billing = Billing::new(&config, store);
    let by = async |app: Option<&str>| {
        let by = vec![By::App, By::User];
        billing.bill(period, by, app.map(Arc::from), now).await
    };
    let whole = by(None).await;
    assert!(
        matches!(whole, Err(BillingError::Store(StoreError::Damaged(_)))),
        "{whole:?}"
    );
    let own = by(Some("portal")).await.unwrap();
    assert_eq!(own.total.ptu_cost.to_string(), "8.333333333333");
}

#[tokio::test]
async fn a_share_of_a_ptu_is_on_the_bill_and_counts_for_no_budget() {
    let (_folder, store) = embedded();
    let text = config("") + &app("thrifty", "budget_per_month = \"10\"");
    let mut calls = example();
    for call in calls.iter_mut().filter(|call| &*call.app == "portal") {
        call.app = "thrifty".into();
    }
    record(&store, &read(&text), &calls).await;
    let running = start_with(&text, store).await;
    let money = running.get("/spillway/api/money?month=2026-10");
    let money = money.header("api-key", "admin-key").send().await.unwrap();
    let money: Value = money.json().await.unwrap();
    let mut apps = money["apps"].as_array().unwrap().iter();
    let thrifty = apps.find(|one| one["app"] == "thrifty").unwrap();
    assert_eq!(thrifty["cost"], "9.233333333333", "{thrifty}");
    assert_eq!(
        thrifty["budget_percent"], 9.0,
        "0.90 of it is pay-as-you-go"
    );
}
