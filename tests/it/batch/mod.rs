//! The batch function: messages in, replies out.

mod chaos;
mod local;
mod memory;
mod world;
