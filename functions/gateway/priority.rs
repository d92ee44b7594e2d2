//! How urgent a call is.

use serde::{Deserialize, Serialize};

/// How urgent a call is. Low-priority calls yield to others where capacity is scarce.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Served at once.
    #[default]
    High,
    /// May wait.
    Low,
}

impl Priority {
    /// `high` or `low`, as in configuration, headers and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Low => "low",
        }
    }

    /// Reads `high` or `low`, in letters of any case.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::High, Self::Low]
            .into_iter()
            .find(|priority| text.trim().eq_ignore_ascii_case(priority.as_str()))
    }

    /// The less urgent of the two: a wish can lower a priority, never raise it.
    #[must_use]
    pub const fn lowered_to(self, wish: Self) -> Self {
        match (self, wish) {
            (Self::High, Self::High) => Self::High,
            _ => Self::Low,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Priority::{High, Low};
    use super::*;

    #[test]
    fn a_wish_lowers_and_never_raises() {
        assert_eq!(High.lowered_to(Low), Low);
        assert_eq!(Low.lowered_to(High), Low);
        assert_eq!(High.lowered_to(High), High);
    }

    #[test]
    fn only_its_two_words_are_read() {
        assert_eq!(Priority::parse(" LOW"), Some(Low));
        assert_eq!(Priority::parse("high"), Some(High));
        assert_eq!(Priority::parse("lowest"), None);
    }
}
