//! OpenAI's Batch API: files of requests, and the batches that work them off (API reference,
//! "Files" and "Batch").
//!
//! [`name`] is what files and batches are called, [`file`] and [`record`] what is known of them and how
//! an app sees that, [`mistake`] what can be wrong with an input file.

pub mod file;
pub mod mistake;
pub mod name;
pub mod record;
