//! A batch message: what it asks for, for whom and until when; what it is answered; what becomes
//! of it where it can't be answered now.
//!
//! In the order of a message's way: [`message`] is what the broker says of it, [`order`] what it
//! asks for ([`line`] reads its body, [`fault`] is what can be wrong with it), [`patience`] whether
//! it waits, is put off or gives up, [`outcome`] what an answer means for it, [`reply`] what its
//! sender gets.

pub mod fault;
pub mod line;
pub mod message;
pub mod order;
pub mod outcome;
pub mod patience;
pub mod reply;
