//! All that is kept in a store, as today's program reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use spillway::gateway::batches::file::FileRecord;
use spillway::gateway::batches::record::BatchRecord;
use spillway::gateway::pacing::window::{DeploymentId, Minute};
use spillway::store::console::Span;
use spillway::store::{
    Store, Table, affinity, batches, bill, console, instances, requests, slots, utilization,
};

use super::later::LATER_KEY;
use super::{WRITTEN, all};

const DAY_MS: u64 = 24 * 3_600_000;

/// What is kept, as today's program reads it: by table, in the order of keys.
pub(super) type Kept = BTreeMap<&'static str, Vec<String>>;

fn said<T: Debug>(all: impl IntoIterator<Item = T>) -> Vec<String> {
    all.into_iter().map(|one| format!("{one:?}")).collect()
}

/// The partitions of a table, without those of a later release.
async fn partitions(store: &dyn Store, table: Table) -> BTreeSet<String> {
    let rows = all(store, table).await;
    let names = rows.into_iter().map(|row| row.key.partition);
    names.filter(|name| !name.starts_with(LATER_KEY)).collect()
}

pub(super) async fn kept(store: &dyn Store) -> Kept {
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

pub(super) async fn asked(store: &dyn Store) -> Vec<requests::Request> {
    let mut read = Vec::new();
    for row in all(store, Table::Requests).await {
        if !row.key.partition.starts_with(LATER_KEY) {
            let found = requests::read(store, &row.key).await.unwrap();
            read.push(found.unwrap().request);
        }
    }
    read
}

pub(super) async fn records<T: serde::de::DeserializeOwned>(
    store: &dyn Store,
    table: Table,
) -> Vec<T> {
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
