//! The domain, pure: no I/O, no clock, no randomness of its own.
pub mod event;
pub mod ptu;
pub mod time;
