//! A file, as it is known and as an app sees it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The purpose of files of requests.
pub const INPUT: &str = "batch";

/// The purpose of files of results.
pub const OUTPUT: &str = "batch_output";

/// Longest name that is kept, characters.
const MAX_FILENAME: usize = 255;

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its id.
    pub id: String,
    /// How long it is, bytes.
    pub bytes: u64,
    /// When it was made, seconds since the Unix epoch.
    pub created_at: u64,
    /// What its app calls it.
    pub filename: String,
    /// [`INPUT`] or [`OUTPUT`].
    pub purpose: String,
}

impl FileRecord {
    /// The file as its app sees it.
    pub fn object(&self) -> Value {
        json!({
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
        })
    }
}

/// A name that a file was uploaded under, as long as it may be.
pub fn filename(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(MAX_FILENAME)
        .collect()
}
