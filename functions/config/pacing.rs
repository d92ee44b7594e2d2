//! The section `[pacing]`, and the ids by which Azure Monitor knows resources.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Endpoint;
use crate::gateway::pacing::rule::Pace;
use crate::gateway::ptu::Utilization;

/// How many low-priority calls of a model run at once on its provisioned deployments, by how full
/// these are: `slots` up to `lower_percent`, none from `upper_percent` on, in between fewer and fewer.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pacing {
    /// Most low-priority calls of a model at once, of all instances.
    #[schemars(range(min = 1, max = 1000))]
    pub slots: u32,
    /// Up to this utilization all slots are open, %.
    #[schemars(range(min = 0, max = 99))]
    pub lower_percent: u32,
    /// From this utilization on none is, %.
    #[schemars(range(min = 1, max = 100))]
    pub upper_percent: u32,
    /// How long rows of utilization are kept, days.
    #[schemars(range(min = 1, max = 400))]
    pub keep_days: u32,
    /// Where Azure Monitor is asked instead of Azure, on this machine: `http://127.0.0.1:PORT`.
    #[schemars(with = "Option<String>")]
    pub monitor: Option<Endpoint>,
}

impl Default for Pacing {
    fn default() -> Self {
        Self {
            slots: 10,
            lower_percent: 20,
            upper_percent: 90,
            keep_days: 7,
            monitor: None,
        }
    }
}

impl Pacing {
    /// The rule.
    pub fn pace(&self) -> Pace {
        Pace {
            slots: self.slots,
            lower: Utilization::of_percent(self.lower_percent.into()),
            upper: Utilization::of_percent(self.upper_percent.into()),
        }
    }
}

/// The id of an Azure OpenAI resource in Azure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceId {
    /// All of it, as it was written, from `/subscriptions/` on.
    pub text: String,
    /// The subscription's GUID.
    pub subscription: String,
}

impl FromStr for ResourceId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const RULE: &str = "must be /subscriptions/ID/resourceGroups/GROUP/providers/Microsoft.CognitiveServices/accounts/NAME";
        let parts: Vec<&str> = text.split('/').collect();
        let ["", a, subscription, b, group, c, provider, d, name] = parts[..] else {
            return Err(RULE.into());
        };
        let words = [
            (a, "subscriptions"),
            (b, "resourceGroups"),
            (c, "providers"),
            (provider, "Microsoft.CognitiveServices"),
            (d, "accounts"),
        ];
        let named = |part: &str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.()".contains(&b);
            !part.is_empty() && part.bytes().all(allowed)
        };
        let is_one = words
            .iter()
            .all(|(is, wanted)| is.eq_ignore_ascii_case(wanted))
            && [subscription, group, name].into_iter().all(named);
        if !is_one {
            return Err(RULE.into());
        }
        Ok(Self {
            text: text.to_owned(),
            subscription: subscription.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "/subscriptions/0-1/resourceGroups/rg (1)/providers/Microsoft.CognitiveServices/accounts/swe";

    #[test]
    fn a_resource_id_is_that_of_an_account() {
        let id = ID.replace(" ", "");
        assert_eq!(id.parse::<ResourceId>().unwrap().subscription, "0-1");
        assert!(id.to_lowercase().parse::<ResourceId>().is_ok());
        for wrong in [
            "",
            "swe",
            ID,
            &id.replace("CognitiveServices", "Storage"),
            &format!("{id}/"),
            &format!("{id}/deployments/x"),
            &id.replace("0-1", ""),
            &id.replace("swe", "a?b"),
        ] {
            assert!(wrong.parse::<ResourceId>().is_err(), "{wrong}");
        }
    }
}
