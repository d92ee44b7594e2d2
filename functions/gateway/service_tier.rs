//! In which service tier a call was processed. It decides what the call's tokens cost.
//!
//! An answer's `service_tier` says how it was processed, whatever its call had asked for, and that is how it
//! is charged: `default` at standard rates, `priority` at higher ones, `flex` at half of the standard ones
//! (Microsoft Learn, "Enable priority processing for Microsoft Foundry models" and "Use Flex processing with
//! Azure OpenAI", as of 2026-09).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A service tier that has prices of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServiceTier {
    /// Standard processing; whatever an answer says that is none of the others.
    #[default]
    Standard,
    /// Priority processing: faster, at a higher price.
    Priority,
    /// Flex processing: slower, at a lower price.
    Flex,
}

impl ServiceTier {
    /// The word used in the configuration, in events and in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Priority => "priority",
            Self::Flex => "flex",
        }
    }

    /// The tier that an answer names.
    pub fn named(word: &[u8]) -> Self {
        match word {
            b"priority" => Self::Priority,
            b"flex" => Self::Flex,
            _ => Self::Standard,
        }
    }

    /// Whether it is the standard one, which events and rows do not name.
    pub fn is_standard(&self) -> bool {
        *self == Self::Standard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_has_the_same_word_in_answers_events_and_the_configuration() {
        for tier in [
            ServiceTier::Standard,
            ServiceTier::Priority,
            ServiceTier::Flex,
        ] {
            let json = serde_json::to_value(tier).unwrap();
            assert_eq!(json.as_str(), Some(tier.as_str()));
            assert_eq!(ServiceTier::named(tier.as_str().as_bytes()), tier);
        }
    }

    #[test]
    fn what_is_charged_as_standard_is_standard() {
        for word in ["default", "auto", "scale", "", "Priority"] {
            assert!(ServiceTier::named(word.as_bytes()).is_standard(), "{word}");
        }
    }
}
