//! The gateway from outside: over HTTP, in front of backends that are simulated or scripted.

mod faults;
mod gateway;
mod host;
mod purity;
mod scenes;
mod scripted;
