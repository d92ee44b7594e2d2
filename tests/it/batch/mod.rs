//! The batch function: messages in, replies out.

mod chaos;
mod held;
mod large;
mod late;
mod local;
mod memory;
mod world;
