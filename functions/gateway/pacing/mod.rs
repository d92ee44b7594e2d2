//! Pacing: low-priority work runs exactly when provisioned capacity is idle.
//!
//! [`rule`] turns a deployment's utilization into how many low-priority calls may run at once;
//! [`lease`] says which instance may hold which of these slots.

pub mod lease;
pub mod rule;
