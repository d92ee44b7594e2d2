//! What counts as a token here, and what a prompt amounts to.
//!
//! A token is a word with the white space before it, words cut every [`MAX_CHARS`] characters: close
//! to what real tokenizers make of English, the same for prompts and answers, and cheap.

use std::hash::{DefaultHasher, Hasher};

/// A prompt that contains this is refused by the content filter.
pub const CONTENT_FILTER_PHRASE: &str = "simulate-content-filter";

/// The longest word that is one token, in characters.
const MAX_CHARS: usize = 6;

/// Tokens that an image in a prompt counts as: gpt-4o's price of a low-detail image.
pub(super) const IMAGE_TOKENS: u64 = 85;

/// Prompts are cached from this many tokens on (Microsoft Learn, "Prompt caching").
pub(super) const CACHED_PREFIX_TOKENS: u64 = 1024;

/// The longest part of the last message that is kept, in characters.
const KEPT_CHARS: usize = 400;

/// The length in bytes of the token that `text` starts with; 0 at its end.
fn first_token(text: &str) -> usize {
    let word = text
        .find(|c: char| !c.is_whitespace())
        .unwrap_or(text.len());
    let rest = text.get(word..).unwrap_or_default();
    let mut chars = rest.char_indices().take_while(|(_, c)| !c.is_whitespace());
    let end = chars.nth(MAX_CHARS - 1).map(|(i, c)| i + c.len_utf8());
    let word_len = end.unwrap_or_else(|| rest.find(char::is_whitespace).unwrap_or(rest.len()));
    word + word_len
}

/// The tokens of `text`, in order and without loss.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (token, after) = rest.split_at_checked(first_token(rest))?;
        rest = after;
        (!token.is_empty()).then_some(token)
    })
}

/// The tokens of a text that the iterator owns, for streams.
#[derive(Debug)]
pub(super) struct OwnedTokens {
    text: String,
    at: usize,
}

impl OwnedTokens {
    pub(super) fn of(text: String) -> Self {
        Self { text, at: 0 }
    }
}

impl Iterator for OwnedTokens {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let token = split(self.text.get(self.at..)?).next()?;
        self.at += token.len();
        Some(token.to_owned())
    }
}

/// How many tokens `text` has.
pub(super) fn count(text: &str) -> u64 {
    split(text).fold(0u64, |n, _| n.saturating_add(1))
}

/// What the answer and the bill need to know of a prompt; the prompt itself is not kept.
#[derive(Debug, Default)]
pub(super) struct Prompt {
    /// Tokens of everything added.
    pub(super) tokens: u64,
    /// Whether the content filter refuses it.
    pub(super) filtered: bool,
    /// The beginning of the text added last.
    pub(super) last: String,
    prefix: DefaultHasher,
}

impl Prompt {
    /// Adds a message's text.
    pub(super) fn add(&mut self, text: &str) {
        for token in split(text) {
            if self.tokens < CACHED_PREFIX_TOKENS {
                self.prefix.write(token.as_bytes());
            }
            self.tokens = self.tokens.saturating_add(1);
        }
        self.filtered |= text.contains(CONTENT_FILTER_PHRASE);
        self.last = text.chars().take(KEPT_CHARS).collect();
    }

    /// Adds tokens that have no text: an image, a conversation remembered.
    pub(super) fn add_tokens(&mut self, tokens: u64) {
        self.tokens = self.tokens.saturating_add(tokens);
    }

    /// What identifies the first [`CACHED_PREFIX_TOKENS`] tokens; `None` for a shorter prompt.
    pub(super) fn cache_key(&self) -> Option<u64> {
        (self.tokens >= CACHED_PREFIX_TOKENS).then(|| self.prefix.finish())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_tokens_and_long_words_are_several() {
        let tokens: Vec<_> = split("Hej,  extraordinary \u{1f980} ").collect();
        assert_eq!(
            tokens,
            ["Hej,", "  extrao", "rdinar", "y", " \u{1f980}", " "]
        );
        assert_eq!(count(""), 0);
    }

    #[test]
    fn prompts_that_begin_alike_share_a_cache_key() {
        let of = |texts: &[&str]| {
            let mut prompt = Prompt::default();
            texts.iter().for_each(|t| prompt.add(t));
            prompt.cache_key()
        };
        let long = "word ".repeat(1100);
        assert_eq!(of(&[&long, "one"]), of(&[&long, "two"]));
        assert_ne!(of(&[&long]), of(&["other", &long]));
        assert_eq!(of(&["short"]), None);
    }

    proptest! {
        #[test]
        fn tokens_put_together_are_the_text(text in "\\PC{0,80}[ \n]{0,3}\\PC{0,80}") {
            prop_assert!(split(&text).all(|t| !t.is_empty()));
            prop_assert_eq!(split(&text).collect::<String>(), text.as_str());
            prop_assert_eq!(OwnedTokens::of(text.clone()).collect::<String>(), text);

        }
    }
}
