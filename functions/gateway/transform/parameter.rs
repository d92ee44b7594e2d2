//! The parameters that rules may be about, with their types, and where they stand.
//!
//! Names, types, ranges and defaults: OpenAI's API reference, which Azure's follows.

use serde::Deserialize;
use serde_json::Value;

use super::super::route::Operation;

/// A parameter of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Parameter {
    /// The most tokens of an answer: `max_completion_tokens` and `max_tokens` of chat, `max_tokens`
    /// of completions, `max_output_tokens` of responses.
    MaxTokens,
    /// How many answers.
    N,
    /// How many answers a completion is chosen from.
    BestOf,
    /// Randomness.
    Temperature,
    /// The share of the likeliest tokens that are looked at.
    TopP,
    /// How much repetition counts against a token.
    FrequencyPenalty,
    /// How much having occurred counts against a token.
    PresencePenalty,
    /// The seed of randomness.
    Seed,
    /// How many likely tokens are reported.
    TopLogprobs,
    /// Whether tools are called at once.
    ParallelToolCalls,
    /// How much a reasoning model thinks, in chat.
    ReasoningEffort,
    /// The processing tier at the service.
    ServiceTier,
    /// Whether the answer is kept at the service.
    Store,
    /// Who uses the app, for the service's monitoring of abuse.
    User,
    /// The same, by its newer name.
    SafetyIdentifier,
    /// What prompt caches go by.
    PromptCacheKey,
    /// The length of embeddings.
    Dimensions,
}

/// A parameter's type.
enum Sort {
    /// A whole number in a range.
    Whole(i64, i64),
    /// A number in a range.
    Number(f64, f64),
    Text,
    Flag,
}

/// The default of completions' `max_tokens`.
const COMPLETION_TOKENS: f64 = 16.0;

impl Parameter {
    /// Its names in bodies of this operation, the one that is put in first; none where the operation
    /// does not have it.
    pub(super) fn names(self, operation: Operation) -> &'static [&'static str] {
        use Operation::{ChatCompletions as Chat, Completions, Embeddings, Images, Responses};
        match (self, operation) {
            (Self::MaxTokens, Chat) => &["max_completion_tokens", "max_tokens"],
            (Self::MaxTokens, Completions) => &["max_tokens"],
            (Self::MaxTokens, Responses) => &["max_output_tokens"],
            (Self::N, Chat | Completions | Images) => &["n"],
            (Self::BestOf, Completions) => &["best_of"],
            (Self::Temperature, Chat | Completions | Responses) => &["temperature"],
            (Self::TopP, Chat | Completions | Responses) => &["top_p"],
            (Self::FrequencyPenalty, Chat | Completions) => &["frequency_penalty"],
            (Self::PresencePenalty, Chat | Completions) => &["presence_penalty"],
            (Self::Seed, Chat | Completions) => &["seed"],
            (Self::TopLogprobs, Chat | Responses) => &["top_logprobs"],
            (Self::ParallelToolCalls, Chat | Responses) => &["parallel_tool_calls"],
            (Self::ReasoningEffort, Chat) => &["reasoning_effort"],
            (Self::ServiceTier, Chat | Responses) => &["service_tier"],
            (Self::Store, Chat | Responses) => &["store"],
            (Self::User, Chat | Completions | Responses | Embeddings | Images) => &["user"],
            (Self::SafetyIdentifier, Chat | Responses) => &["safety_identifier"],
            (Self::PromptCacheKey, Chat | Responses) => &["prompt_cache_key"],
            (Self::Dimensions, Embeddings) => &["dimensions"],
            _ => &[],
        }
    }

    /// What its absence amounts to, where it has a size; `None` where it amounts to nothing that
    /// could be too large.
    pub(super) const fn absent(self, operation: Operation) -> Option<f64> {
        match self {
            Self::MaxTokens if matches!(operation, Operation::Completions) => {
                Some(COMPLETION_TOKENS)
            }
            Self::MaxTokens => Some(f64::INFINITY),
            Self::N | Self::BestOf | Self::Temperature | Self::TopP => Some(1.0),
            Self::FrequencyPenalty | Self::PresencePenalty => Some(0.0),
            _ => None,
        }
    }

    /// Whether it has a size that can be capped.
    pub const fn has_size(self) -> bool {
        !matches!(self, Self::Seed) && matches!(self.sort(), Sort::Whole(..) | Sort::Number(..))
    }

    /// Whether it can be this.
    ///
    /// # Errors
    /// What it has to be.
    pub fn check(self, value: &Value) -> Result<(), String> {
        let (is_good, wanted) = match self.sort() {
            Sort::Whole(least, most) => {
                let inside = value.as_i64().is_some_and(|n| (least..=most).contains(&n));
                (inside, format!("a whole number from {least} to {most}"))
            }
            Sort::Number(least, most) => {
                let inside = value.as_f64().is_some_and(|n| (least..=most).contains(&n));
                (inside, format!("a number from {least} to {most}"))
            }
            Sort::Text => {
                let is_text = value.as_str().is_some_and(|text| !text.is_empty());
                (is_text, "a string that is not empty".into())
            }
            Sort::Flag => (value.is_boolean(), "true or false".into()),
        };
        if is_good {
            return Ok(());
        }
        Err(format!("must be {wanted} for this parameter"))
    }

    const fn sort(self) -> Sort {
        match self {
            Self::MaxTokens | Self::Dimensions => Sort::Whole(1, 10_000_000),
            Self::N => Sort::Whole(1, 128),
            Self::BestOf => Sort::Whole(1, 20),
            Self::Seed => Sort::Whole(i64::MIN, i64::MAX),
            Self::TopLogprobs => Sort::Whole(0, 20),
            Self::Temperature => Sort::Number(0.0, 2.0),
            Self::TopP => Sort::Number(0.0, 1.0),
            Self::FrequencyPenalty | Self::PresencePenalty => Sort::Number(-2.0, 2.0),
            Self::ParallelToolCalls | Self::Store => Sort::Flag,
            Self::ReasoningEffort
            | Self::ServiceTier
            | Self::User
            | Self::SafetyIdentifier
            | Self::PromptCacheKey => Sort::Text,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_parameter_has_the_name_that_its_operation_has() {
        use Operation::{ChatCompletions, Completions, Embeddings, Images, Responses};
        use Parameter::{BestOf, Dimensions, MaxTokens, N, ReasoningEffort, Store, User};
        for (parameter, operation, names) in [
            (
                MaxTokens,
                ChatCompletions,
                &["max_completion_tokens", "max_tokens"][..],
            ),
            (MaxTokens, Completions, &["max_tokens"]),
            (MaxTokens, Responses, &["max_output_tokens"]),
            (MaxTokens, Embeddings, &[]),
            (N, Images, &["n"]),
            (N, Responses, &[]),
            (BestOf, Completions, &["best_of"]),
            (ReasoningEffort, ChatCompletions, &["reasoning_effort"]),
            (Store, Responses, &["store"]),
            (User, Embeddings, &["user"]),
            (Dimensions, Embeddings, &["dimensions"]),
            (Dimensions, ChatCompletions, &[]),
        ] {
            assert_eq!(
                parameter.names(operation),
                names,
                "{parameter:?} of {operation:?}"
            );
        }
    }

    #[test]
    fn values_are_of_the_parameters_type_and_range() {
        use Parameter::{
            FrequencyPenalty, MaxTokens, N, ParallelToolCalls, Seed, Temperature, TopLogprobs, User,
        };
        for (parameter, good, bad, wanted) in [
            (MaxTokens, json!(1), json!(0), "a whole number from 1 to"),
            (N, json!(128), json!(1.5), "a whole number from 1 to 128"),
            (TopLogprobs, json!(0), json!("0"), "from 0 to 20"),
            (Seed, json!(-7), json!(null), "a whole number"),
            (Temperature, json!(2), json!(2.1), "a number from 0 to 2"),
            (FrequencyPenalty, json!(-2.0), json!([]), "from -2 to 2"),
            (User, json!("u"), json!(""), "not empty"),
            (
                ParallelToolCalls,
                json!(false),
                json!("no"),
                "true or false",
            ),
        ] {
            assert_eq!(parameter.check(&good), Ok(()), "{parameter:?}");
            let said = parameter.check(&bad).unwrap_err();
            assert!(said.contains(wanted), "{parameter:?}: {said}");
        }
    }

    #[test]
    fn what_has_a_size_can_be_capped_where_it_is_left_out_too() {
        use Operation::{ChatCompletions, Completions};
        assert!(Parameter::N.has_size() && Parameter::Temperature.has_size());
        assert!(!Parameter::Seed.has_size() && !Parameter::User.has_size());
        assert_eq!(Parameter::MaxTokens.absent(Completions), Some(16.0));
        assert_eq!(
            Parameter::MaxTokens.absent(ChatCompletions),
            Some(f64::INFINITY)
        );
        assert_eq!(
            Parameter::PresencePenalty.absent(ChatCompletions),
            Some(0.0)
        );
        assert_eq!(Parameter::TopP.absent(ChatCompletions), Some(1.0));
        assert_eq!(Parameter::User.absent(ChatCompletions), None);
    }
}
