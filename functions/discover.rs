//! `spillway discover`: a configuration, proposed from what is deployed on Azure.

use std::io;
use std::sync::Arc;

use crate::azure::credential::Surroundings;
use crate::azure::own_token::OwnTokens;
use crate::azure::resources::ResourceManager;
use crate::config::{Endpoint, ResourceId, Scheme};
use crate::gateway::discover::propose;
use crate::host::clock::Clock;

/// Azure's public cloud.
pub const PUBLIC_CLOUD: &str = "https://management.azure.com";

/// Reads the resources from the resource manager at `manager`, and proposes a configuration with them, in this
/// order. The token is that of the environment's identity, or of who is logged in to the Azure CLI; a
/// manager on this machine is shown none.
///
/// # Errors
/// When a resource can't be read: half a proposal would look like a whole one.
pub async fn discover(manager: Endpoint, resources: &[ResourceId]) -> io::Result<String> {
    let env = |name: &str| std::env::var(name).ok();
    let mut tokens = OwnTokens::new(Surroundings::read(&env, true));
    let token = match manager.scheme() {
        Scheme::Http => None,
        Scheme::Https => {
            let token = tokens.get(None, &format!("{manager}/.default"));
            let token = token.map_err(io::Error::other)?;
            tokio::spawn(Arc::clone(&token).keep_fresh(Clock::new()));
            Some(token)
        }
    };
    let manager = ResourceManager::new(manager, token).map_err(io::Error::other)?;
    let mut accounts = Vec::with_capacity(resources.len());
    for resource in resources {
        let account = manager.account(resource).await;
        accounts.push(account.map_err(io::Error::other)?);
    }
    Ok(propose(&accounts))
}
