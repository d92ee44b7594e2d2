//! The tables `[[app.transform]]`: what an app's requests are changed by.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Number, Value};

use super::App;
use crate::gateway::transform::{
    Action, Change, HeaderName, HeaderValue, Parameter, Rule, Transform as Rules,
};

/// One change of an app's requests: of a `parameter` or a `header`, or a `system_prompt`. Tables are kept to
/// in their order.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transform {
    /// The models whose calls are changed; absent: all.
    pub models: Option<Vec<String>>,
    /// The parameter of the body that this is about. `max_tokens` stands for all its names.
    pub parameter: Option<Parameter>,
    /// The header of the request that this is about.
    #[schemars(with = "Option<String>")]
    pub header: Option<HeaderName>,
    /// A system prompt that goes before what the app says, in chat and responses.
    #[schemars(length(min = 1, max = 65_536))]
    pub system_prompt: Option<String>,
    /// The parameter's value where a call has none.
    #[serde(default)]
    #[schemars(with = "Value")]
    pub default: Option<Value>,
    /// The parameter's or header's value, whatever a call has.
    #[serde(default)]
    #[schemars(with = "Value")]
    pub set: Option<Value>,
    /// The parameter is lowered to this.
    #[serde(default)]
    #[schemars(with = "Value")]
    pub at_most: Option<Number>,
    /// The parameter or header is taken out.
    #[serde(default)]
    pub remove: bool,
    /// Calls that have the parameter are refused.
    #[serde(default)]
    pub refuse: bool,
}

impl App {
    /// What the app's requests are changed by, where they are.
    pub fn transform(&self) -> Option<Arc<Rules>> {
        let rules: Vec<Rule> = self.transforms.iter().filter_map(Transform::rule).collect();
        (!rules.is_empty()).then(|| Arc::new(Rules::new(rules)))
    }
}

impl Transform {
    /// The rule; `None` where it does nothing, which no valid configuration has.
    fn rule(&self) -> Option<Rule> {
        let shared = |models: &Vec<String>| models.iter().map(|m| Arc::from(m.as_str())).collect();
        Some(Rule {
            models: self.models.as_ref().map(shared),
            action: self.action()?,
        })
    }

    fn action(&self) -> Option<Action> {
        if let Some(text) = &self.system_prompt {
            return Some(Action::SystemPrompt(text.as_str().into()));
        }
        if let Some(name) = &self.header {
            let value = self.set.as_ref().and_then(Value::as_str);
            let value = value.and_then(|text| text.parse::<HeaderValue>().ok());
            let does_something = value.is_some() || self.remove;
            return does_something.then(|| Action::Header(name.clone(), value));
        }
        Some(Action::Parameter(self.parameter?, self.change()?))
    }

    fn change(&self) -> Option<Change> {
        let default = self.default.clone().map(Change::Default);
        let set = || self.set.clone().map(Change::Set);
        let most = || self.at_most.clone().map(Change::AtMost);
        let remove = || self.remove.then_some(Change::Remove);
        let refuse = || self.refuse.then_some(Change::Refuse);
        default
            .or_else(set)
            .or_else(most)
            .or_else(remove)
            .or_else(refuse)
    }
}
