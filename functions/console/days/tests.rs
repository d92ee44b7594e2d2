use super::*;
use crate::gateway::event::{Kind, UsageEvent};
use crate::gateway::price::Charge;
use crate::store::embedded::Embedded;
use crate::store::ledger::Ledger;

/// 2026-11-23T17:06:30.000Z, and the start of a day some days before.
const NOW: Timestamp = Timestamp::from_unix_ms(1_795_453_590_000);
const DAY: Timestamp = Timestamp::from_unix_ms(1_795_392_000_000 - 5 * DAY_MS);

fn days(more: &str) -> Days {
    let text = format!(
        "[auth]\nmode = \"off\"\n\
         [[backend]]\nname = \"a\"\nendpoint = \"http://127.0.0.1:9\"\n\
         [[backend.deployment]]\nname = \"gpt-4o\"\nkind = \"payg\"\n{more}"
    );
    let config = Config::parse(&text, "test", &|_| None);
    Days::new(&config.unwrap_or_else(|e| panic!("{e}")))
}

async fn call(store: &Arc<dyn Store>, id: &str) {
    let event = UsageEvent {
        id: id.to_owned(),
        time: DAY.plus_ms(1),
        app: "portal".into(),
        model: "gpt-4o".into(),
        ..UsageEvent::default()
    };
    let price = |_: &UsageEvent| Charge {
        cost: Some(Decimal::TWO),
        ..Charge::default()
    };
    let ledger = Ledger::new(Arc::clone(store));
    ledger.record(&[&event], &price).await.unwrap();
}

async fn cost(days: &Days, store: &Arc<dyn Store>, now: Timestamp) -> Decimal {
    let read = days.read(store.as_ref(), vec![DAY], now).await.unwrap();
    read[0].apps.iter().map(|(_, spent)| spent.payg_cost).sum()
}

#[tokio::test]
async fn a_day_that_is_over_is_summed_up_once_a_day_until_nothing_can_come_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
    call(&store, "a").await;
    assert_eq!(cost(&days(""), &store, NOW).await, Decimal::TWO);
    call(&store, "b").await;
    let later = NOW.plus_ms(DAY_MS - 1);
    assert_eq!(
        cost(&days(""), &store, later).await,
        Decimal::TWO,
        "as written"
    );
    let four = Decimal::from(4);
    let next_day = NOW.plus_ms(DAY_MS);
    assert_eq!(cost(&days(""), &store, next_day).await, four);
    let last = NOW.plus_ms(20 * DAY_MS);
    assert_eq!(cost(&days(""), &store, last).await, four);
    call(&store, "c").await;
    let much_later = NOW.plus_ms(30 * DAY_MS);
    assert_eq!(cost(&days(""), &store, much_later).await, four);
}

#[tokio::test]
async fn other_prices_of_ptus_sum_a_day_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
    call(&store, "a").await;
    days("").keep_at(store.as_ref(), NOW).await.unwrap();
    call(&store, "b").await;
    assert_eq!(cost(&days(""), &store, NOW).await, Decimal::TWO);
    let ptu = "[[backend]]\nname = \"b\"\nendpoint = \"http://127.0.0.1:9\"\n\
        [[backend.deployment]]\nname = \"gpt-4o\"\nkind = \"ptu\"\nptus = 15\n";
    assert_eq!(cost(&days(ptu), &store, NOW).await, Decimal::from(4));
}

#[tokio::test]
async fn another_capacity_of_a_ptu_sums_a_day_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(folder.path()).unwrap());
    let ptu = |base_model: &str| {
        days(&format!(
            "[[backend]]\nname = \"b\"\nendpoint = \"http://127.0.0.1:9\"\n\
             [[backend.deployment]]\nname = \"chat\"\nkind = \"ptu\"\nptus = 15\n\
             base_model = \"{base_model}\"\n"
        ))
    };
    // An hour of 15 PTUs costs as much whatever they can do.
    let event = UsageEvent {
        id: "a".to_owned(),
        time: DAY.plus_ms(1),
        app: "portal".into(),
        model: "chat".into(),
        backend: "b".into(),
        deployment: "chat".into(),
        kind: Some(Kind::Ptu),
        ..UsageEvent::default()
    };
    // What 15 PTUs of gpt-4o do in an hour: all of it is the app's.
    let weigh = |_: &UsageEvent| Charge {
        weighted: 15 * 2_500 * 60,
        ..Charge::default()
    };
    let ledger = Ledger::new(Arc::clone(&store));
    ledger.record(&[&event], &weigh).await.unwrap();
    ptu("gpt-4o").keep_at(store.as_ref(), NOW).await.unwrap();
    for (base_model, share) in [("gpt-4o", "15"), ("gpt-4.1", "12.5"), ("gpt-4o", "15")] {
        let read = ptu(base_model).read(store.as_ref(), vec![DAY], NOW).await;
        let (_, spent) = &read.unwrap()[0].apps[0];
        assert_eq!(spent.ptu_cost.to_string(), share, "{base_model}");
    }
}
