//! Which models may serve in another's place, and when.
//!
//! A model's chain is walked once, in order, and never goes back: each model of it is tried at most
//! once a call. The chains of the models in it are not followed.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::Deserialize;

use super::classify::error_code;

/// Why a model can't serve a call that another may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// None of its deployments could answer: all are full, or failed.
    Exhausted,
    /// The call is too long for it.
    ContextLength,
    /// Its content filter refused the prompt.
    ContentFilter,
}

/// A model that may serve in another's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Substitute {
    /// Its name, as apps ask for it.
    pub model: Arc<str>,
    /// What it serves after.
    pub on: Vec<Reason>,
}

/// A model's substitutes, the first one first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain(pub Vec<Substitute>);

impl Chain {
    /// The next model after the first `passed` of the chain, for a call that ended for this reason;
    /// with it how many are passed then. `may_use` says which models the app may ask for.
    pub fn next(
        &self,
        passed: usize,
        reason: Reason,
        may_use: impl Fn(&str) -> bool,
    ) -> Option<(usize, &Arc<str>)> {
        let mut rest = self.0.iter().enumerate().skip(passed);
        let fits = |one: &Substitute| one.on.contains(&reason) && may_use(&one.model);
        let (index, found) = rest.find(|(_, one)| fits(one))?;
        Some((index + 1, &found.model))
    }

    /// Whether a refusal by the backend can lead on.
    pub fn reads_refusals(&self) -> bool {
        let by_refusal = |reason: &Reason| *reason != Reason::Exhausted;
        self.0.iter().any(|one| one.on.iter().any(by_refusal))
    }
}

/// What a 400's body says, where another model may not say the same.
///
/// Codes: `context_length_exceeded` (OpenAI's guide to error codes) and Azure's `content_filter`,
/// which it gives for prompts only; an answer that is filtered comes under a 200.
pub fn refusal(body: &[u8]) -> Option<Reason> {
    match &*error_code(body)? {
        "context_length_exceeded" => Some(Reason::ContextLength),
        "content_filter" => Some(Reason::ContentFilter),
        _ => None,
    }
}
