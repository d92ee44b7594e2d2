//! Finds batches that have not ended, takes some of them on, and holds them while they run.
//!
//! Every process of the gateway does. A batch is one process's at a time: by a lease in the table, which
//! it renews. When a process is killed, another one takes its batches on once the lease has run out.

use std::collections::HashMap;
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

/// Most batches that a process works on at the same time.
const MAX_RUNNING: usize = 4;

/// A row without a batch is cleared away when it is older than this, ms: the batch is made after it.
const ORPHAN_MS: u64 = 300_000;

impl Batches {
    /// Works on batches, for ever.
    pub async fn run_all(self: Arc<Self>) {
        let mut running = JoinSet::new();
        let mut names: HashMap<Id, String> = HashMap::new();
        loop {
            if let Err(error) = self.start_free(&mut running, &mut names).await {
                tracing::warn!(%error, "batches can't be looked for");
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
                Some(ended) = running.join_next_with_id() => {
                    let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                    names.remove(&id);
                }
            }
        }
    }

    async fn start_free(
        self: &Arc<Self>,
        running: &mut JoinSet<()>,
        names: &mut HashMap<Id, String>,
    ) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let (found, next) = rows::active(&*self.store, after).await?;
            for (active, etag) in found {
                if running.len() >= MAX_RUNNING {
                    return Ok(());
                }
                let is_held = !active.holder.is_empty() && active.until > self.now();
                if is_held || names.values().any(|name| *name == active.id) {
                    continue;
                }
                if let Some((active, etag)) = self.take(active, etag).await? {
                    let name = active.id.clone();
                    let work = Arc::clone(self).hold(active, etag);
                    names.insert(running.spawn(work).id(), name);
                }
            }
            after = next;
            if after.is_none() {
                return Ok(());
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
