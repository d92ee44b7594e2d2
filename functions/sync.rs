//! What threads share is made of these, where `tests/interleavings` tries the orders in which they can go on:
//! it puts others in their place.

pub(crate) use std::sync::{Mutex, MutexGuard, atomic};
