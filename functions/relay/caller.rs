//! Who is calling.

use std::sync::Arc;

use http::HeaderMap;

use super::error::RelayError;
use super::settings::{App, Settings};
use crate::config::KeyHash;

/// Longest key that is hashed, bytes.
const MAX_KEY: usize = 1024;

/// The app whose key the call shows.
pub(super) fn identify(settings: &Settings, headers: &HeaderMap) -> Result<Arc<App>, RelayError> {
    let Some(apps) = &settings.apps else {
        return Ok(Arc::clone(&settings.anonymous));
    };
    let key = key(headers).ok_or(RelayError::NoKey)?;
    if key.len() > MAX_KEY {
        return Err(RelayError::WrongKey);
    }
    // Looked up by its SHA-256: how long that takes tells nothing of any other key.
    apps.get(&KeyHash::of(key))
        .cloned()
        .ok_or(RelayError::WrongKey)
}

fn key(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let bearer = || {
        let (scheme, token) = text("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    };
    text("api-key")
        .or_else(|| text("ocp-apim-subscription-key"))
        .or_else(bearer)
        .filter(|key| !key.is_empty())
}
