//! What is taken out of prompts before they are kept.

use std::borrow::Cow;
use std::str::FromStr;

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

/// What stands where something was taken out.
const REDACTED: &str = "[redacted]";

/// Longest regular expression, bytes, and most memory of a compiled one.
const MAX_PATTERN: usize = 1000;
const MAX_COMPILED: usize = 1 << 20;

/// A regular expression; whatever it matches is taken out.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Regex);

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_PATTERN {
            return Err(format!("must have 1 to {MAX_PATTERN} characters"));
        }
        let built = regex::RegexBuilder::new(text)
            .size_limit(MAX_COMPILED)
            .build();
        let pattern = built.map_err(|error| {
            // The library draws a picture over several lines.
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            format!("is no regular expression: {}", last.trim())
        })?;
        if pattern.is_match("") {
            return Err("matches nothing at all, so it would match everywhere".into());
        }
        Ok(Self(pattern))
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// All patterns. Matching takes time in proportion to the text, whatever the pattern
/// (the crate `regex` has no backtracking).
#[derive(Clone, Debug, Default)]
pub struct Redaction(Vec<Pattern>);

impl Redaction {
    /// These patterns, one after the other.
    pub const fn new(patterns: Vec<Pattern>) -> Self {
        Self(patterns)
    }

    /// Whether there is nothing to take out.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes out what the patterns find in each text of a value; how many places there were.
    pub fn apply(&self, mut value: Value) -> (Value, usize) {
        let mut found = 0;
        if !self.is_empty() {
            self.visit(&mut value, &mut found);
        }
        (value, found)
    }

    fn visit(&self, value: &mut Value, found: &mut usize) {
        match value {
            Value::String(text) => self.text(text, found),
            Value::Array(items) => items.iter_mut().for_each(|item| self.visit(item, found)),
            Value::Object(map) => map.values_mut().for_each(|item| self.visit(item, found)),
            Value::Number(number) => {
                // A card's number may stand as a number, too.
                let mut text = number.to_string();
                let before = *found;
                self.text(&mut text, found);
                if *found > before {
                    *value = text.into();
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn text(&self, text: &mut String, found: &mut usize) {
        for Pattern(pattern) in &self.0 {
            let count = pattern.find_iter(text).count();
            if count > 0 {
                *found += count;
                if let Cow::Owned(after) = pattern.replace_all(text, regex::NoExpand(REDACTED)) {
                    *text = after;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn redaction(patterns: &[&str]) -> Redaction {
        Redaction::new(patterns.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn every_text_is_looked_at_however_deep_and_however_escaped() {
        let request = r#"{"messages":[{"content":[{"text":"mail a\u0040b.de and c@d.de"}]}],"n":4111111111111111}"#;
        let value = serde_json::from_str(request).unwrap();
        let (value, found) = redaction(&[r"\S+@\S+", r"^\d{16}$"]).apply(value);
        assert_eq!(found, 3);
        assert_eq!(
            value,
            json!({"messages": [{"content": [{"text": "mail [redacted] and [redacted]"}]}], "n": "[redacted]"})
        );
    }

    #[test]
    fn a_pattern_that_is_none_says_why() {
        let wrong = |text: &str| text.parse::<Pattern>().unwrap_err();
        assert!(wrong("(").contains("unclosed group"), "{}", wrong("("));
        assert!(wrong("").contains("1 to 1000"));
        assert!(wrong("x*").contains("everywhere"));
        assert!(
            wrong(r"\w{1000}{1000}").contains("size"),
            "{}",
            wrong(r"\w{1000}{1000}")
        );
    }

    #[test]
    fn a_dollar_in_the_text_is_no_group() {
        let (value, _) = redaction(&["(secret) (is)"]).apply(json!("the secret is $1"));
        assert_eq!(value, "the [redacted] $1");
    }
}
