//! A configuration, proposed from what the resource manager says of resources and their deployments.
//!
//! Nothing is decided that an operator could not read in the proposal: what is left out stands
//! there as a comment that says why.

mod proposal;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use proposal::propose;

/// A resource (`Microsoft.CognitiveServices/accounts`, api-version 2024-10-01).
#[derive(Clone, Debug, Deserialize)]
pub struct Account {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The region that it is in.
    #[serde(default)]
    pub location: String,
    #[serde(default)]
    properties: AccountProperties,
    /// Its deployments, which come in answers of their own.
    #[serde(skip)]
    pub deployments: Vec<Deployment>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct AccountProperties {
    endpoint: String,
    /// By the API that is served there.
    endpoints: BTreeMap<String, String>,
}

/// Which of a resource's endpoints serves Azure OpenAI's API, where it has several.
const OPENAI_ENDPOINT: &str = "OpenAI Language Model Instance API";

impl Account {
    /// Where it serves the API.
    pub fn endpoint(&self) -> &str {
        let of_api = self.properties.endpoints.get(OPENAI_ENDPOINT);
        of_api.map_or(&*self.properties.endpoint, String::as_str)
    }
}

/// A page of a list.
#[derive(Debug, Deserialize)]
pub struct Page<T> {
    /// What is on it.
    pub value: Vec<T>,
    /// Where the next one is.
    #[serde(rename = "nextLink")]
    pub next: Option<String>,
}

/// A deployment (`accounts/deployments`, api-version 2024-10-01).
#[derive(Clone, Debug, Deserialize)]
pub struct Deployment {
    name: String,
    sku: Option<Sku>,
    properties: DeploymentProperties,
    #[serde(rename = "systemData")]
    system_data: Option<SystemData>,
}

#[derive(Clone, Debug, Deserialize)]
struct Sku {
    name: String,
    /// PTUs of a provisioned one, thousands of tokens a minute of others.
    capacity: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeploymentProperties {
    model: Model,
    provisioning_state: Option<String>,
    spillover_deployment_name: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Model {
    #[serde(default)]
    format: String,
    name: String,
    #[serde(default)]
    version: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SystemData {
    created_at: Option<String>,
}
