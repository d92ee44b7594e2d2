//! The daily look at Azure's list prices, at a service of this machine.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::RawQuery;
use axum::routing::get;
use spillway::billing::price_check::{once, to_text};
use spillway::gateway::price::retail::SortOfPrice;
use spillway::gateway::time::Timestamp;
use spillway::store::embedded::Embedded;
use spillway::store::prices::latest;
use tokio::net::TcpListener;

/// 2026-11-23T17:06:30.000Z.
const NOW: Timestamp = Timestamp::from_unix_ms(1_795_453_590_000);

const FIRST: &str = include_str!("../fixtures/retail-prices/page1.json");
const SECOND: &str = include_str!("../fixtures/retail-prices/page2.json");

/// Serves these pages, the second one where the first says.
async fn serve(first: String, second: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let host = format!("http://{address}");
    let first = first.replace("${HOST}", &host);
    let pages = Arc::new((first, second));
    let route = get(move |RawQuery(query): RawQuery| {
        let pages = Arc::clone(&pages);
        async move {
            let query = query.unwrap_or_default();
            if query.starts_with("$skip") {
                pages.1.clone()
            } else {
                assert!(query.contains("contains(productName"), "{query}");
                pages.0.clone()
            }
        }
    });
    let router = Router::new().route("/api/retail/prices", route);
    tokio::spawn(async move { axum::serve(listener, router).await });
    host
}

fn store() -> (tempfile::TempDir, Embedded) {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    (folder, store)
}

#[tokio::test]
async fn prices_of_the_lists_own_date_propose_nothing() {
    let (_folder, store) = store();
    let host = serve(FIRST.into(), SECOND.into()).await;
    once(&store, &host, NOW).await.unwrap();
    let found = latest(&store).await.unwrap().unwrap();
    assert!(found.read > 200, "{} prices were read", found.read);
    assert_eq!(found.proposals, []);
}

#[tokio::test]
async fn a_changed_price_is_proposed_and_kept_until_the_next_day_finds_otherwise() {
    let (_folder, store) = store();
    let meter = "\"meterName\":\"gpt 4o 1120 Outp glbl Tokens\"";
    let (page, other) = if FIRST.contains(meter) {
        (FIRST, SECOND)
    } else {
        (SECOND, FIRST)
    };
    let is_first = page.as_ptr() == FIRST.as_ptr();
    let lines = page.lines().map(|line| {
        if line.contains(meter) {
            line.replace("\"retailPrice\":0.01,", "\"retailPrice\":0.009,")
        } else {
            line.to_owned()
        }
    });
    let changed = lines.collect::<Vec<_>>().join("\n");
    let host = if is_first {
        serve(changed, other.into()).await
    } else {
        serve(other.into(), changed).await
    };
    once(&store, &host, NOW).await.unwrap();
    let found = latest(&store).await.unwrap().unwrap();
    assert!(!found.proposals.is_empty());
    for proposal in &found.proposals {
        assert_eq!(
            (&*proposal.model, proposal.sort),
            ("gpt-4o", SortOfPrice::Output)
        );
        assert_eq!(
            (proposal.listed.as_deref(), &*proposal.retail),
            (Some("10"), "9")
        );
    }
    let shown = to_text(Some(&found));
    assert!(
        shown.contains("gpt-4o global output: 10 -> 9 since"),
        "{shown}"
    );

    // Another instance, the same day: nothing is asked.
    once(&store, "http://127.0.0.1:1", NOW).await.unwrap();
    let unchanged = serve(FIRST.into(), SECOND.into()).await;
    once(&store, &unchanged, NOW.plus_ms(24 * 3_600_000))
        .await
        .unwrap();
    assert_eq!(latest(&store).await.unwrap().unwrap().proposals, []);
}

#[tokio::test]
async fn a_page_that_is_elsewhere_is_not_fetched_and_the_look_can_be_taken_again() {
    let (_folder, store) = store();
    let elsewhere = FIRST.replace("${HOST}", "http://127.0.0.2:1");
    let host = serve(elsewhere, SECOND.into()).await;
    let error = once(&store, &host, NOW).await.unwrap_err();
    assert!(error.contains("not the service's own"), "{error}");
    assert_eq!(latest(&store).await.unwrap(), None);
    let host = serve(FIRST.into(), SECOND.into()).await;
    once(&store, &host, NOW).await.unwrap();
    assert!(latest(&store).await.unwrap().is_some());
}

#[tokio::test]
async fn what_is_no_price_list_is_an_error() {
    for (body, why) in [
        ("<html>", "can't be read"),
        ("{\"Items\":[]}", "none of Azure's prices"),
    ] {
        let (_folder, store) = store();
        let host = serve(body.into(), String::new()).await;
        let error = once(&store, &host, NOW).await.unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}
