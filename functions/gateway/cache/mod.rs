//! Which answers may be kept and given again, and under what.
//!
//! [`key()`] says whether a call's answer may be given to a later call, and what that call has to have in
//! common; [`control`] what the client says of it (RFC 9111), [`kept`] what is kept, and [`parts`] how
//! calls share the bill of an answer that they got together.

mod canonical;
pub mod control;
pub mod kept;
mod key;
pub mod parts;
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::Deserialize;

pub use self::key::{Asked, Key, VARYING, key};

/// Whose answers a call may be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// None: nothing is kept.
    #[default]
    Off,
    /// Those of the app's own calls.
    App,
    /// Those of all apps that share theirs and may use the same backends, tiers and deployments.
    Shared,
}

/// Which generated answers are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Generated {
    /// None.
    Off,
    /// Those of calls with `temperature` 0 or a `seed`: a second answer would be meant to be the same.
    #[default]
    Deterministic,
    /// All, also those that would differ the next time.
    Any,
}

/// What is kept of an app's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whose answers its calls may be given.
    pub scope: Scope,
    /// Which of chat, completions and responses.
    pub generated: Generated,
    /// Whether embeddings are.
    pub embeddings: bool,
    /// How long an answer may be given again, ms.
    pub ttl_ms: u64,
}
