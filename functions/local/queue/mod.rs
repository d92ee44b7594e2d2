//! The embedded queue of `spillway local`: Service Bus queues in a file of this machine.
//!
//! [`broker`] has the rules.

pub mod broker;
