//! The process as the Functions host sees it: a listener on a port that it names, ready at once.

pub mod bodies;
pub mod clock;
pub mod invocation;
pub mod log;
pub mod problem;
pub mod server;
