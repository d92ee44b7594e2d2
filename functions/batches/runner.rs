//! Finds batches that have not ended, takes some of them on, and holds them while they run.
//!
//! Every process of the gateway does. A batch is one process's at a time: by a lease in the table, which
//! it renews. When a process is killed, another one takes its batches on once the lease has run out.
//!
//! A process has places for some batches at a time. A long batch has its place for hours, so that no app
//! gets so many that there is none for the next one (`next`).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinSet};

use super::Batches;
use super::run::RunError;
use crate::store::Etag;
use crate::store::StoreError;
use crate::store::batches::{self as rows, Active};

/// How long a batch is held, ms, and how often that is renewed.
const LEASE_MS: u64 = 15_000;
const RENEW: Duration = Duration::from_millis(LEASE_MS / 3);

/// How often a process looks for batches.
const LOOK: Duration = Duration::from_secs(5);

/// Most batches that a process works on at the same time: of one app half as many, see [`next`].
const MAX_RUNNING: usize = 8;

/// A row without a batch is cleared away when it is older than this, ms: the batch is made after it.
const ORPHAN_MS: u64 = 300_000;

impl Batches {
    /// Works on batches, for ever.
    pub async fn run_all(self: Arc<Self>) {
        let mut running = JoinSet::new();
        let mut held: HashMap<Id, Active> = HashMap::new();
        loop {
            if let Err(error) = self.start_free(&mut running, &mut held).await {
                tracing::warn!(%error, "batches can't be looked for");
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
                Some(ended) = running.join_next_with_id() => {
                    let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                    held.remove(&id);
                }
            }
        }
    }

    async fn start_free(
        self: &Arc<Self>,
        running: &mut JoinSet<()>,
        held: &mut HashMap<Id, Active>,
    ) -> Result<(), StoreError> {
        if held.len() >= MAX_RUNNING {
            return Ok(());
        }
        let mut waiting = self.waiting(held).await?;
        loop {
            let first = {
                let running: Vec<&str> = held.values().map(|active| &*active.app).collect();
                next(&running, waiting.iter().map(|(active, _)| &*active.app))
            };
            let Some((active, etag)) = first.and_then(|at| waiting.remove(at)) else {
                return Ok(());
            };
            if let Some((active, etag)) = self.take(active, etag).await? {
                let work = Arc::clone(self).hold(active.clone(), etag);
                held.insert(running.spawn(work).id(), active);
            }
        }
    }

    /// The batches that nobody works on, the oldest first, of each app as many as there are places.
    async fn waiting(
        &self,
        held: &HashMap<Id, Active>,
    ) -> Result<VecDeque<(Active, Etag)>, StoreError> {
        let mut waiting = VecDeque::new();
        let mut counts: HashMap<String, usize> = HashMap::new();
        let mut after = None;
        loop {
            let (found, next) = rows::active(&*self.store, after).await?;
            for (active, etag) in found {
                let is_held = !active.holder.is_empty() && active.until > self.now();
                if is_held || held.values().any(|own| own.id == active.id) {
                    continue;
                }
                let count = counts.entry(active.app.clone()).or_default();
                if *count < MAX_RUNNING {
                    *count += 1;
                    waiting.push_back((active, etag));
                }
            }
            after = next;
            if after.is_none() {
                return Ok(waiting);
            }
        }
    }

    /// Holds a batch from now on, or for longer.
    async fn take(
        &self,
        mut active: Active,
        etag: Etag,
    ) -> Result<Option<(Active, Etag)>, StoreError> {
        active.holder.clone_from(&self.instance);
        active.until = self.now().plus_ms(LEASE_MS);
        let taken = rows::take(&*self.store, &active, etag).await?;
        Ok(taken.map(|etag| (active, etag)))
    }

    /// Works on a batch as long as it is this process's.
    async fn hold(self: Arc<Self>, active: Active, etag: Etag) {
        let ended = tokio::select! {
            ended = self.run(&active) => ended,
            () = self.keep_lease(active.clone(), etag) => Err(RunError::Lost),
        };
        let id = &active.id;
        match ended {
            Ok(true) => {
                tracing::info!(id, app = active.app, "a batch has ended");
                self.retire(&active).await;
            }
            // Its batch is made after its row.
            Ok(false) if self.now().ms_since(active.since) > ORPHAN_MS => {
                self.retire(&active).await
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(id, %error, "a batch is left to be taken on again"),
        }
    }

    async fn retire(&self, active: &Active) {
        if let Err(error) = rows::retire(&*self.store, active).await {
            // Whoever takes it on again finds that it has ended.
            tracing::warn!(id = active.id, %error, "a batch that has ended can't be put away");
        }
    }

    /// Renews the lease; ends when it is lost.
    async fn keep_lease(&self, mut active: Active, mut etag: Etag) {
        loop {
            tokio::time::sleep(RENEW).await;
            match self.take(active.clone(), etag.clone()).await {
                Ok(Some(renewed)) => (active, etag) = renewed,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(id = active.id, %error, "a batch's lease can't be renewed");
                    if self.now() >= active.until {
                        return;
                    }
                }
            }
        }
    }
}

/// Which of the waiting batches has the next place, by its number: the first one of an app with the
/// fewest that run, and only while more places are free than that app has. So whoever comes first
/// leaves half of what is free to others, and these half of the rest.
fn next<'a>(running: &[&str], waiting: impl Iterator<Item = &'a str>) -> Option<usize> {
    let free = MAX_RUNNING.saturating_sub(running.len());
    let places = |app: &str| running.iter().filter(|one| **one == app).count();
    let (at, has) = waiting
        .map(places)
        .enumerate()
        .min_by_key(|(_, has)| *has)?;
    (has < free).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The apps that get places one after the other, of these that wait.
    fn filled(running: &[&'static str], waiting: &[&'static str]) -> Vec<&'static str> {
        let (mut running, mut waiting) = (running.to_vec(), waiting.to_vec());
        let mut started = Vec::new();
        while let Some(at) = next(&running, waiting.iter().copied()) {
            let app = waiting.remove(at);
            running.push(app);
            started.push(app);
        }
        started
    }

    #[test]
    fn an_app_alone_gets_half_the_places() {
        assert_eq!(filled(&[], &["a"; 20]), ["a"; MAX_RUNNING / 2]);
        assert_eq!(filled(&["a"; 3], &["a"; 20]), ["a"]);
        assert!(filled(&[], &[]).is_empty());
    }

    #[test]
    fn the_app_with_the_fewest_comes_first_and_of_that_the_oldest() {
        assert_eq!(next(&["a"], ["a", "b", "b"].into_iter()), Some(1));
        assert_eq!(next(&["a", "b"], ["a", "b", "a"].into_iter()), Some(0));
        let both = ["a", "a", "a", "a", "b", "b"];
        assert_eq!(filled(&[], &both), ["a", "b", "a", "b", "a"]);
    }

    #[test]
    fn however_many_batches_some_apps_have_there_is_a_place_for_the_next_one() {
        let mut running = Vec::new();
        for app in ["a", "b", "c", "d"] {
            let started = filled(&running, &[app; 20]);
            assert!(!started.is_empty(), "{app} after {running:?}");
            running.extend(started);
        }
        assert!(running.len() <= MAX_RUNNING, "{running:?}");
        // Once all are taken, the next place goes to who has none.
        running.retain(|app| *app != "d");
        assert_eq!(filled(&running, &["a", "b", "e", "e"]).first(), Some(&"e"));
    }

    #[test]
    fn when_all_places_are_taken_nothing_starts() {
        assert_eq!(next(&["a"; MAX_RUNNING], ["b"].into_iter()), None);
    }
}
