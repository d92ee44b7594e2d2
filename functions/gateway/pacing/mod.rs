//! Pacing: low-priority work runs exactly when provisioned capacity is idle.
//!
//! [`monitor`] and [`alert`] read what Azure Monitor says, [`window`] estimates a deployment's utilization from the
//! calls themselves, [`calibration`] corrects that by what Azure Monitor says later, [`known`] and
//! [`figure`] make one figure of all sources, [`rule`] turns
//! it into how many low-priority calls may run at once, [`lease`] says which instance may hold which
//! of these slots.

pub mod alert;
pub mod calibration;
pub mod figure;
pub mod history;
pub mod known;
pub mod lease;
pub mod monitor;
pub mod rule;
pub mod window;
