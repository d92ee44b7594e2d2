//! What stands in a row.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::gateway::event::Tokens;

use super::bounds;

/// Characters of one field's part of a long text: whatever they are, within a field's bounds.
const PART: usize = bounds::MAX_TEXT / 2;

/// One value. Money is text, as a decimal number; moments are text, in RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Field {
    /// `Edm.Boolean`
    Bool(bool),
    /// `Edm.Int64`
    Int(i64),
    /// `Edm.String`
    Text(String),
}

/// The fields of a row, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fields(BTreeMap<String, Field>);

impl Fields {
    /// No fields.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// These, and a text. An empty one is left out: it reads the same.
    #[must_use]
    pub fn text(mut self, name: &str, value: impl Into<String>) -> Self {
        let value = value.into();
        if !value.is_empty() {
            self.0.insert(name.to_owned(), Field::Text(value));
        }
        self
    }

    /// These, and a text of any length, in as many fields `NAME_0`, `NAME_1`, ... as it needs.
    #[must_use]
    pub fn long_text(self, name: &str, value: &str) -> Self {
        let letters: Vec<char> = value.chars().collect();
        let parts = letters.chunks(PART).enumerate();
        parts.fold(self, |fields, (i, part)| {
            fields.text(&format!("{name}_{i}"), part.iter().collect::<String>())
        })
    }

    /// These, and a number. One beyond [`i64::MAX`] becomes that.
    #[must_use]
    pub fn number(mut self, name: &str, value: u64) -> Self {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.0.insert(name.to_owned(), Field::Int(value));
        self
    }

    /// These, and tokens by sort, under the names that calls and sums have for them.
    #[must_use]
    pub fn tokens(self, tokens: &Tokens) -> Self {
        self.number("input_tokens", tokens.input)
            .number("output_tokens", tokens.output)
            .number("cached_tokens", tokens.cached)
            .number("reasoning_tokens", tokens.reasoning)
            .number("audio_input_tokens", tokens.audio_input)
            .number("audio_output_tokens", tokens.audio_output)
            .number("image_input_tokens", tokens.image_input)
            .number("cached_audio_tokens", tokens.cached_audio)
            .number("cached_image_tokens", tokens.cached_image)
    }

    /// These, and a yes or no.
    #[must_use]
    pub fn flag(mut self, name: &str, value: bool) -> Self {
        self.0.insert(name.to_owned(), Field::Bool(value));
        self
    }

    /// These, and `newer` ones in the place of those of the same names.
    #[must_use]
    pub fn with(mut self, newer: Self) -> Self {
        self.0.extend(newer.0);
        self
    }

    /// A field, whatever its sort.
    pub fn get(&self, name: &str) -> Option<&Field> {
        self.0.get(name)
    }

    /// The tokens that [`Self::tokens`] put in; 0 of each sort that is not there.
    pub fn get_tokens(&self) -> Tokens {
        Tokens {
            input: self.get_number("input_tokens"),
            output: self.get_number("output_tokens"),
            cached: self.get_number("cached_tokens"),
            reasoning: self.get_number("reasoning_tokens"),
            audio_input: self.get_number("audio_input_tokens"),
            audio_output: self.get_number("audio_output_tokens"),
            image_input: self.get_number("image_input_tokens"),
            cached_audio: self.get_number("cached_audio_tokens"),
            cached_image: self.get_number("cached_image_tokens"),
        }
    }

    /// A text; empty where there is none.
    pub fn get_text(&self, name: &str) -> &str {
        match self.0.get(name) {
            Some(Field::Text(text)) => text,
            _ => "",
        }
    }

    /// What [`Self::long_text`] put in; empty where there is none.
    pub fn get_long_text(&self, name: &str) -> String {
        let parts = (0..).map(|i| self.get_text(&format!("{name}_{i}")));
        parts.take_while(|part| !part.is_empty()).collect()
    }

    /// A number; 0 where there is none, or a negative one.
    pub fn get_number(&self, name: &str) -> u64 {
        match self.0.get(name) {
            Some(Field::Int(number)) => u64::try_from(*number).unwrap_or(0),
            _ => 0,
        }
    }

    /// A yes or no; no where there is none.
    pub fn get_flag(&self, name: &str) -> bool {
        matches!(self.0.get(name), Some(Field::Bool(true)))
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Field)> {
        self.0.iter().map(|(name, field)| (name.as_str(), field))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(String, Field)> for Fields {
    fn from_iter<I: IntoIterator<Item = (String, Field)>>(fields: I) -> Self {
        Self(fields.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_went_in() {
        let fields = Fields::new()
            .text("app", "chat")
            .text("nothing", "")
            .number("tokens", 7)
            .number("many", u64::MAX)
            .flag("spilled", true);
        let json = serde_json::to_string(&fields).unwrap();
        let back: Fields = serde_json::from_str(&json).unwrap();
        assert_eq!(back, fields);
        assert_eq!(
            (back.get_text("app"), back.get_text("nothing")),
            ("chat", "")
        );
        assert_eq!(back.get_number("tokens"), 7);
        assert_eq!(back.get_number("many"), i64::MAX.unsigned_abs());
        assert!(back.get_flag("spilled") && !back.get_flag("app"));
        assert_eq!((back.len(), back.is_empty()), (4, false));
    }

    #[test]
    fn tokens_come_back_by_sort_and_are_none_where_an_earlier_release_kept_none() {
        let tokens = Tokens {
            input: 9,
            output: 8,
            cached: 7,
            reasoning: 6,
            audio_input: 5,
            audio_output: 4,
            image_input: 3,
            cached_audio: 2,
            cached_image: 1,
        };
        assert_eq!(Fields::new().tokens(&tokens).get_tokens(), tokens);
        let earlier = Fields::new().number("cached_tokens", 7);
        let cached = Tokens {
            cached: 7,
            ..Tokens::default()
        };
        assert_eq!(earlier.get_tokens(), cached);
    }
}
