use std::sync::Arc;

use super::*;
use crate::store::encode_key;

fn insert(row: &str, n: u64) -> Write {
    Write {
        row: encode_key(row),
        change: Change::Insert(Fields::new().number("n", n)),
    }
}

#[tokio::test]
async fn rows_outlast_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let key = Key {
        partition: "p".into(),
        row: "a".into(),
    };
    let first = {
        let store = Embedded::open(folder.path()).unwrap();
        let writes = vec![insert("a", 1)];
        store.write(Table::Affinity, "p", writes).await.unwrap();
        store.get(Table::Affinity, &key).await.unwrap().unwrap()
    };
    let store = reopen(folder.path()).await;
    assert_eq!(
        store.get(Table::Affinity, &key).await,
        Ok(Some(first.clone()))
    );
    let change = Change::Replace(Fields::new().number("n", 2), first.etag.clone());
    let row = "a".to_owned();
    let replaced = vec![Write { row, change }];
    store.write(Table::Affinity, "p", replaced).await.unwrap();
    let second = store.get(Table::Affinity, &key).await.unwrap().unwrap();
    assert_ne!(second.etag, first.etag, "versions go on where they were");
}

/// The writer's thread lets go of the file a moment after the store is dropped.
async fn reopen(folder: &Path) -> Embedded {
    for _ in 0..500 {
        match Embedded::open(folder) {
            Ok(store) => return store,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
    panic!("the file stayed open");
}

#[tokio::test]
async fn a_second_process_is_told_why_it_cannot_open_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Embedded::open(folder.path()).unwrap();
    let error = Embedded::open(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("another process") && error.contains(FILE),
        "{error}"
    );
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(FILE);
    std::fs::write(&file, "something else entirely, and not short").unwrap();
    assert!(Embedded::open(folder.path()).is_err());
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("something else"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn transactions_that_are_made_at_once_all_count_or_all_fail() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Embedded::open(folder.path()).unwrap());
    let mut tasks = Vec::new();
    for task in 0..8u64 {
        let store = Arc::clone(&store);
        tasks.push(tokio::spawn(async move {
            let mut won = 0;
            for round in 0..20u64 {
                // All tasks want row `round`; each has one of its own in the same transaction.
                let own = format!("own-{task}-{round}");
                let writes = vec![insert(&own, task), insert(&format!("one-{round}"), task)];
                match store.write(Table::Chargeback, "p", writes).await {
                    Ok(()) => won += 1,
                    Err(StoreError::Exists { index: 1 }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            won
        }));
    }
    let mut won = 0;
    for task in tasks {
        won += task.await.unwrap();
    }
    assert_eq!(won, 20);
    let own = Range::of("p", "own-");
    let page = store.read(Table::Chargeback, &own).await.unwrap();
    assert_eq!(
        page.rows.len(),
        20,
        "a transaction that failed left nothing"
    );
}

#[tokio::test]
async fn a_store_that_is_dropped_has_closed_its_file() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..10u64 {
        let store = Embedded::open(folder.path()).unwrap();
        let writes = vec![insert(&round.to_string(), round)];
        store.write(Table::Chargeback, "p", writes).await.unwrap();
    }
    let file = folder.path().join(FILE);
    // Called only where the file has to be checked.
    Builder::new()
        .set_repair_callback(|_| panic!("the file was not closed"))
        .create(&file)
        .unwrap();
}
