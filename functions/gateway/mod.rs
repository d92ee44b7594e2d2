//! The domain, pure: no I/O, no clock, no randomness of its own.
//!
//! What happens to a call, in order: [`identity`] says who is calling and [`app`] what that app
//! may use, [`route`] reads its URL, [`request`] its body, [`limit`] and [`budget`] say whether the
//! app may still call ([`share`] is how instances share a limit), [`transform`] changes what its app's rules
//! name, [`cache`] whether an answer that was given before will do, [`plan`] says which deployment to try
//! next ([`marks`] is how instances tell each other which are full), [`classify`] what an answer means,
//! [`spillover`] who gave it, [`usage`] what it used ([`sorts`] takes that apart), [`service_tier`] how it was
//! processed; [`event`] is what is kept of it, [`prompt`] what is kept of its text where that is wanted, and
//! [`metrics`] what is counted of all. [`realtime`] and
//! [`websocket`] read what passes in a session of the realtime API. [`price`] says what a call costs,
//! [`bill`] who pays it, [`what_if`] what other PTUs would, and [`reconcile`] how far all that is from what
//! Azure counts. `tree` says of which JSON a tree of values may be made.

pub mod app;
pub mod batch;
pub mod batches;
pub mod bill;
pub mod budget;
pub mod cache;
pub mod classify;
pub mod deployment;
pub mod discover;
pub mod estimate;
pub mod event;
pub mod fallback;
pub mod id;
pub mod identity;
pub mod limit;
pub mod marks;
pub mod metrics;
pub mod monitor;
pub mod multipart;
pub mod opening;
pub mod pacing;
pub mod plan;
pub mod pool;
pub mod price;
pub mod priority;
pub mod prompt;
pub mod ptu;
pub mod realtime;
pub mod reconcile;
pub mod request;
pub mod retry_after;
pub mod room;
pub mod route;
pub mod service_tier;
pub mod share;
pub mod skim;
pub mod sorts;
pub mod spillover;
pub mod sse;
pub mod strategy;
pub mod time;
pub mod trace;
pub mod transform;
mod tree;
pub mod usage;
pub mod websocket;
pub mod what_if;
