//! Names of apps that are known by an Entra application id only: those that others than the relay
//! report, without an `[[app]]` of the configuration. They are for people: what is counted and charged goes by
//! the id.
//!
//! Where the configuration asks for it, Microsoft Graph is asked for them in the background, seldom, and
//! the store keeps what it said. Bills read only the store.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::azure::graph::{Graph, GraphError};
use crate::config::is_guid;
use crate::gateway::budget::Month;
use crate::gateway::time::{DAY_MS, Timestamp};
use crate::host::clock::Clock;
use crate::store::names::{self, Known};
use crate::store::{Store, StoreError, bill};

/// Time between looks at whether there are new apps.
const EVERY: Duration = Duration::from_secs(60 * 60);

/// How long a name is good, and that there is none, ms.
const GOOD_MS: u64 = 7 * DAY_MS;
const NONE_MS: u64 = DAY_MS;

/// Most apps that are asked for in a look; the others are the next one's.
const MOST: usize = 100;

/// Display names by app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(BTreeMap<Arc<str>, Arc<str>>);

impl Names {
    /// Those that the store has. One that is due to be asked for again is better than none. Where the store
    /// can't be read there are none: nothing depends on them.
    pub async fn read(store: &dyn Store) -> Self {
        let known = names::all(store).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "apps' names can't be read; their ids are shown");
            Vec::new()
        });
        let named = known
            .into_iter()
            .filter_map(|one| Some((one.app, one.name?)));
        Self(named.collect())
    }

    /// An app's display name.
    pub fn of(&self, app: &str) -> Option<&str> {
        self.0.get(app).map(|name| &**name)
    }

    /// An app for people: its display name, and its id after that, as two apps may have the same name.
    pub fn shown(&self, app: &str) -> String {
        match self.of(app) {
            Some(name) => format!("{name} ({app})"),
            None => app.to_owned(),
        }
    }
}

/// Why names were not asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamesError {
    /// The store failed.
    Store(StoreError),
    /// Graph gave none.
    Graph(GraphError),
}

impl fmt::Display for NamesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "the store can't be read or written: {error}"),
            Self::Graph(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for NamesError {}

impl From<StoreError> for NamesError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Asks for ever, an hour apart. A failure is said once, until there is another one.
pub async fn keep(store: Arc<dyn Store>, graph: Graph, clock: Clock) {
    let mut said = None;
    loop {
        // Instances that start together ask one after the other, and find what the first was told.
        tokio::time::sleep(Duration::from_secs(fastrand::u64(5..120))).await;
        let failed = once(store.as_ref(), &graph, clock.now()).await.err();
        if let Some(error) = failed.as_ref().filter(|_| failed != said) {
            tracing::warn!(%error, "apps' names can't be had; bills show their ids");
        }
        said = failed;
        tokio::time::sleep(EVERY).await;
    }
}

/// Asks for the names of the apps with calls in the month of `now`, or in that before, which are not
/// known or due.
///
/// # Errors
/// [`NamesError`]. What was learnt until then is kept.
pub async fn once(store: &dyn Store, graph: &Graph, now: Timestamp) -> Result<(), NamesError> {
    let known = names::all(store).await?;
    let good = known.iter().filter(|one| one.until > now);
    let good: BTreeMap<&str, &Known> = good.map(|one| (&*one.app, one)).collect();
    let mut due = Vec::new();
    for month in months(now) {
        let apps = bill::apps(store, &month).await?;
        due.extend(
            apps.into_iter()
                .filter(|app| is_guid(app) && !good.contains_key(&**app)),
        );
    }
    due.sort_unstable();
    due.dedup();
    for app in due.into_iter().take(MOST) {
        let name = graph.display_name(&app).await.map_err(NamesError::Graph)?;
        let good_ms = if name.is_some() { GOOD_MS } else { NONE_MS };
        let known = Known {
            app,
            name: name.map(Into::into),
            until: now.plus_ms(good_ms),
        };
        names::keep(store, &known).await?;
    }
    Ok(())
}

/// The month of a moment and the one before it, such as `2026-11`.
fn months(now: Timestamp) -> [String; 2] {
    let this = Month::of(now);
    let before = Timestamp::from_unix_ms(this.start().unix_ms().saturating_sub(1));
    [this, Month::of(before)].map(|month| month.to_string())
}
