//! Opens what a configuration names: the store, the blobs, and the tokens to get in with.

use std::io;
use std::sync::Arc;

use super::Place;
use crate::azure::credential::Surroundings;
use crate::azure::own_token::{OwnToken, OwnTokens};
use crate::config::{Storage, StoragePlace};
use crate::host::clock::Clock;
use crate::store::Store;
use crate::store::azure_tables::{self, AzureTables};
use crate::store::blobs::Blobs;
use crate::store::blobs::azure::AzureBlobs;
use crate::store::blobs::embedded::Embedded as Files;
use crate::store::embedded::Embedded;

/// The store that a configuration names; `None` where it names none. What Azure's needs in the
/// background, a token and its tables, runs in the runtime that this is called in: the accepting
/// thread's.
///
/// # Errors
/// When it can't be opened. Whether a storage account can be reached is not waited for.
pub fn open_store(place: Place, storage: &Storage) -> io::Result<Option<Arc<dyn Store>>> {
    let azure = match &storage.tables {
        None => return Ok(None),
        Some(StoragePlace::Embedded(folder)) => return Ok(Some(Arc::new(Embedded::open(folder)?))),
        Some(StoragePlace::Emulator(endpoint)) => AzureTables::emulator(endpoint),
        Some(StoragePlace::Account(endpoint)) => {
            AzureTables::account(endpoint, fresh_token(place, azure_tables::SCOPE)?)
        }
    };
    let azure = Arc::new(azure.map_err(io::Error::other)?);
    tokio::spawn(make_tables(Arc::clone(&azure)));
    Ok(Some(azure))
}

/// Makes the tables before the first call needs them, so that a missing role shows at the start.
async fn make_tables(store: Arc<AzureTables>) {
    match store.make_tables().await {
        Ok(()) => tracing::info!(?store, "the tables are there"),
        Err(error) => tracing::error!(
            ?store, %error,
            "the tables can't be made or reached; each write tries again"
        ),
    }
}

/// The store of blobs that a configuration names; `None` where it names none. As [`open_store`].
///
/// # Errors
/// As [`open_store`].
pub fn open_blobs(place: Place, storage: &Storage) -> io::Result<Option<Arc<dyn Blobs>>> {
    let azure = match &storage.blobs {
        None => return Ok(None),
        Some(StoragePlace::Embedded(folder)) => return Ok(Some(Arc::new(Files::open(folder)?))),
        Some(StoragePlace::Emulator(endpoint)) => AzureBlobs::emulator(endpoint),
        Some(StoragePlace::Account(endpoint)) => {
            AzureBlobs::account(endpoint, fresh_token(place, azure_tables::SCOPE)?)
        }
    };
    let azure = Arc::new(azure.map_err(io::Error::other)?);
    tokio::spawn(make_containers(Arc::clone(&azure)));
    Ok(Some(azure))
}

/// As [`make_tables`].
async fn make_containers(blobs: Arc<AzureBlobs>) {
    match blobs.make_containers().await {
        Ok(()) => tracing::info!(?blobs, "the containers are there"),
        Err(error) => tracing::error!(
            ?blobs, %error,
            "the containers can't be made or reached; each write tries again"
        ),
    }
}

/// A token of the gateway's own, which is fetched again and again in the runtime that this is called
/// in.
pub(super) fn fresh_token(place: Place, scope: &str) -> io::Result<Arc<OwnToken>> {
    let mut tokens = OwnTokens::new(surroundings(place));
    let token = tokens.get(None, scope).map_err(io::Error::other)?;
    tokio::spawn(Arc::clone(&token).keep_fresh(Clock::new()));
    Ok(token)
}

/// Whose identity it has where it runs at `place`.
pub(super) fn surroundings(place: Place) -> Surroundings {
    let env = |name: &str| std::env::var(name).ok();
    Surroundings::read(&env, place == Place::Local)
}
