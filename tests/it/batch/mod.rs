//! The batch function: messages in, replies out.

mod chaos;
mod memory;
mod world;
