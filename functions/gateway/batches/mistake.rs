//! What can be wrong with an input file, so that its batch fails before anything is called.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::batch::fault::Fault;
use super::super::batch::line::{self, Line};

/// Most mistakes of a file that are told.
pub const MAX_TOLD: usize = 20;

/// Longest text of one, characters.
const MAX_MESSAGE: usize = 300;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistake {
    /// The word by which programs know it.
    pub code: String,
    /// What is wrong and what to do.
    pub message: String,
    /// The line, from 1; none where it is the file's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<u32>,
}

impl Mistake {
    /// A mistake; `line` is where.
    pub fn new(code: &str, message: impl Into<String>, line: Option<u32>) -> Self {
        let message: String = message.into();
        Self {
            code: code.to_owned(),
            message: message.chars().take(MAX_MESSAGE).collect(),
            line,
        }
    }

    /// It as an app sees it.
    pub fn object(&self) -> Value {
        json!({"code": self.code, "message": self.message, "param": null, "line": self.line})
    }
}

/// Reads a line of a batch for `endpoint`, which is a path in the v1 form.
///
/// # Errors
/// What is wrong with it.
pub fn read(number: u32, line: &Bytes, endpoint: &str) -> Result<(String, Line), Mistake> {
    let wrong = |code: &str, message: String| Mistake::new(code, message, Some(number));
    let read =
        line::read(line, None).map_err(|fault: Fault| wrong(fault.code(), fault.to_string()))?;
    let id = read.custom_id.clone().filter(|id| !id.is_empty());
    let Some(custom_id) = id else {
        return Err(wrong(
            "missing_custom_id",
            "The line has no `custom_id`.".into(),
        ));
    };
    if read.path != endpoint {
        let message = format!(
            "The line's `url` is {}, the batch's `endpoint` {endpoint}.",
            read.path
        );
        return Err(wrong("mismatched_url", message));
    }
    Ok((custom_id, read))
}

/// Looks for names that stand twice, in 8 bytes a name. Two names with the same hash would be taken
/// for one: of 50,000 with a chance of 1 to 10^10.
#[derive(Debug, Default)]
pub struct Names {
    hashes: HashSet<u64>,
    state: RandomState,
}

impl Names {
    /// Whether the name is new.
    pub fn note(&mut self, name: &str) -> bool {
        self.hashes.insert(self.state.hash_one(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(line: &str) -> String {
        let line = Bytes::copy_from_slice(line.as_bytes());
        read(7, &line, "/v1/chat/completions").unwrap_err().code
    }

    #[test]
    fn a_line_has_a_name_and_the_batchs_endpoint() {
        let body = r#"{"model":"m","messages":[]}"#;
        let good = format!(
            r#"{{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{body}}}"#
        );
        let good = Bytes::from(good);
        let (name, line) = read(1, &good, "/v1/chat/completions").unwrap();
        assert_eq!((&*name, &*line.model), ("a", "m"));
        assert_eq!(
            read(1, &good, "/v1/embeddings").unwrap_err().code,
            "mismatched_url"
        );
        assert_eq!(
            wrong(&format!(
                r#"{{"url":"/v1/chat/completions","body":{body}}}"#
            )),
            "missing_custom_id"
        );
        assert_eq!(wrong("plain"), "invalid_body");
        assert_eq!(
            wrong(r#"{"custom_id":"a","body":{"messages":[]}}"#),
            "model_missing"
        );
    }

    #[test]
    fn a_name_that_is_too_long_is_a_mistake() {
        let line = |name: &str| {
            let url = "/v1/chat/completions";
            let body = json!({"model": "m", "messages": []});
            json!({"custom_id": name, "url": url, "body": body}).to_string()
        };
        let longest = "x".repeat(line::MAX_CUSTOM_ID);
        let good = Bytes::from(line(&longest));
        assert!(read(1, &good, "/v1/chat/completions").is_ok());
        for more in [1, 4 << 20] {
            let name = longest.clone() + &"x".repeat(more);
            assert_eq!(wrong(&line(&name)), "custom_id_too_long");
        }
    }

    #[test]
    fn a_name_that_stands_twice_is_found() {
        let mut names = Names::default();
        assert!(names.note("a") && names.note("b") && !names.note("a"));
    }
}
