//! `spillway.toml`: what may stand in it, reading it, and every mistake of it with its line.
//!
//! [`Source::find`] says where the configuration is, [`Source::read`] fetches its text,
//! [`Config::parse`] makes a [`Config`] of it or says all that is wrong with it.
//!
//! The types in [`types`] are the one description of the file. Their JSON Schema is generated
//! ([`schema()`]): editors complete from it, and the file is checked against it, so that what is
//! allowed is written down once. The steps of reading:
//!
//! 1. `tree`: the TOML text becomes a tree whose keys and values know their place, with each
//!    `${NAME}` replaced;
//! 2. `shape`: the tree is checked against the schema (keys, types, ranges, words);
//! 3. the tree is deserialized;
//! 4. `validate`: what a schema can't say (unique names, references, rules across keys).
//!
//! A message never holds a value that came from the environment or from a key.

mod auth;
mod batch;
mod batch_api;
mod cache;
pub mod diff;
mod endpoint;
mod env;
mod fallback;
mod hub;
mod key_hash;
mod limits;
mod live;
mod mistakes;
mod pacing;
mod place;
mod prices;
mod prompts;
mod read;
mod secret;
mod shape;
mod source;
pub mod telemetry;
mod transform;
mod tree;
pub mod types;
mod validate;

#[cfg(test)]
mod tests;

pub(crate) use auth::is_guid;
pub use auth::{Audience, Auth, AuthMode, TokenAlgorithm};
pub use batch::Batch;
pub use batch_api::BatchApi;
pub use cache::Cache;
pub use endpoint::{Endpoint, Scheme};
pub use fallback::Fallback;
pub use hub::Hub;
pub use key_hash::KeyHash;
pub use limits::{AppLimit, Chargeback, Money};
pub use live::Live;
pub use mistakes::{Mistake, Mistakes};
pub use pacing::{Pacing, ResourceId};
pub use place::StoragePlace;
pub use prices::{Amount, Day, Price};
pub use prompts::Prompts;
pub use read::schema;
pub use secret::Secret;
pub use source::{Source, SourceError};
pub use telemetry::Telemetry;
pub use transform::Transform;
pub use types::{
    ApiForm, App, Backend, Config, Deployment, Gateway, Model, PastSize, Storage, mebibytes,
};
