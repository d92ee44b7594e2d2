//! What an app's requests are changed by on their way: parameters, headers, a system prompt.
//!
//! The rules of an app are kept to in the order in which they stand. Only the JSON values that a rule names
//! change; every other byte of the body stays as it came. What a rule is about must not be said
//! twice in a body, or in another type than the API has: gateway and backend could each go by
//! another of the two.

mod body;
mod header;
mod parameter;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use serde_json::{Number, Value};

use super::request::{BodyError, Edit};
use super::route::Operation;
pub use header::{HeaderName, HeaderValue};
pub use parameter::Parameter;

/// What an app's requests are changed by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transform {
    rules: Vec<Rule>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The models whose calls it is for; `None`: all.
    pub models: Option<Vec<Arc<str>>>,
    /// What it does.
    pub action: Action,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Something with a parameter of the body.
    Parameter(Parameter, Change),
    /// Sets a header, or removes it.
    Header(HeaderName, Option<HeaderValue>),
    /// Puts a system prompt before what the app says: a first message of chat, the beginning of a
    /// response's `instructions`.
    SystemPrompt(Arc<str>),
}

/// What becomes of a parameter. One that is `null` counts as absent, as the API has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This value where the call has none.
    Default(Value),
    /// This value, whatever the call has.
    Set(Value),
    /// No more than this. Where the call has none, and none would be more, it gets this.
    AtMost(Number),
    /// It is taken out.
    Remove,
    /// A call that has it is refused.
    Refuse,
}

/// Why a call can't be changed as its app's rules say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransformError {
    /// The body can't be read.
    Body(BodyError),
    /// What it says of something that a rule is about is refused.
    Refused {
        /// Its name in the body.
        name: String,
        /// Why.
        why: Why,
    },
}

/// Why a value is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The app may not use it.
    NotAllowed,
    /// It is no number, and a rule says how large it may be.
    NoNumber,
    /// It is no text, and a rule puts something before it.
    NoText,
    /// It stands twice.
    Twice,
}

impl fmt::Display for TransformError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(error) => error.fmt(f),
            Self::Refused { name, why } => match why {
                Why::NotAllowed => write!(f, "this app may not use `{name}`: leave it out"),
                Why::NoNumber => write!(f, "`{name}` must be a number"),
                Why::NoText => write!(f, "`{name}` must be a string"),
                Why::Twice => write!(f, "`{name}` stands twice in the body"),
            },
        }
    }
}

impl std::error::Error for TransformError {}

impl Transform {
    /// These rules, in this order.
    pub const fn new(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    /// Whether a rule may change bodies of this operation for `model`.
    pub fn changes_body(&self, model: &str, operation: Operation) -> bool {
        self.actions(model).any(|action| match action {
            Action::Parameter(parameter, _) => !parameter.names(operation).is_empty(),
            Action::SystemPrompt(_) => body::takes_system_prompt(operation),
            Action::Header(..) => false,
        })
    }

    /// The changes that a JSON body needs; none where it is already as the rules have it.
    ///
    /// # Errors
    /// When the body is no JSON object, or says something that a rule refuses.
    pub fn edits(
        &self,
        body: &[u8],
        model: &str,
        operation: Operation,
    ) -> Result<Vec<Edit>, TransformError> {
        body::edits(body, self.actions(model), operation)
    }

    /// The headers that are set, or removed where there is no value, in order.
    pub fn headers(
        &self,
        model: &str,
    ) -> impl Iterator<Item = (&HeaderName, Option<&HeaderValue>)> {
        self.actions(model).filter_map(|action| match action {
            Action::Header(name, value) => Some((name, value.as_ref())),
            Action::Parameter(..) | Action::SystemPrompt(_) => None,
        })
    }

    fn actions(&self, model: &str) -> impl Iterator<Item = &Action> {
        let is_for = move |rule: &&Rule| {
            let models = rule.models.as_ref();
            models.is_none_or(|all| all.iter().any(|one| &**one == model))
        };
        self.rules.iter().filter(is_for).map(|rule| &rule.action)
    }
}
