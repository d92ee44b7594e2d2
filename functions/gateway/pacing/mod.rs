//! Pacing: low-priority work runs exactly when provisioned capacity is idle.
//!
//! [`window`] estimates a deployment's utilization from the calls themselves, [`calibration`] corrects
//! that by what Azure Monitor says later, [`figure`] makes one figure of all sources, [`rule`] turns
//! it into how many low-priority calls may run at once, [`lease`] says which instance may hold which
//! of these slots.

pub mod calibration;
pub mod figure;
pub mod lease;
pub mod rule;
pub mod window;
