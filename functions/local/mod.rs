//! `spillway local`: everything on this machine, with no Azure.
//!
//! [`simulation`] stands in for Azure OpenAI resources: deployments that speak the wire format,
//! fill up like the real ones and say so, and answer with made-up text. No model runs anywhere.
//! [`monitor`] stands in for Azure Monitor, [`timer`] for the host's timer.

pub mod embedded;
pub mod monitor;
pub mod queue;
pub mod simulation;
pub mod timer;
