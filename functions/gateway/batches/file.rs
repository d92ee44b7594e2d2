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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_sees_a_file_as_the_api_has_it() {
        let record = FileRecord {
            id: "file-1".into(),
            bytes: 7,
            created_at: 1_795_000_000,
            filename: "calls.jsonl".into(),
            purpose: INPUT.into(),
        };
        let object = record.object();
        assert_eq!(object["object"], "file");
        assert_eq!(object["created_at"], 1_795_000_000_u64);
        // What is kept is read again.
        let kept = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<FileRecord>(&kept).unwrap(), record);
        for field in ["id", "bytes", "filename", "purpose"] {
            let same = serde_json::from_str::<Value>(&kept).unwrap();
            assert_eq!(object[field], same[field], "{field}");
        }
    }

    #[test]
    fn a_name_has_no_control_characters_and_an_end() {
        assert_eq!(filename("a\r\n\u{0}b.jsonl"), "ab.jsonl");
        assert_eq!(
            filename(&"\u{fc}".repeat(1000)).chars().count(),
            MAX_FILENAME
        );
    }
}
