//! The batch function: messages in, replies out.

mod chaos;
mod late;
mod local;
mod memory;
mod world;
