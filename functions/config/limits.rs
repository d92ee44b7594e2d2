//! What an app may use and spend: the keys of `[[app.limit]]` and `[chargeback]`, and money.

use std::path::PathBuf;
use std::str::FromStr;

use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::Deserialize;

use super::App;
use super::hub::Hub;
use crate::gateway::bill::Idle;
use crate::gateway::budget::Budget;
use crate::gateway::limit::Allowance;

/// What an app may use of one model. Its calls count here and in the limits of the app.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppLimit {
    /// The model that apps ask for.
    pub model: String,
    /// Tokens a minute, prompt and output together; absent: no limit.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub tokens_per_minute: Option<u64>,
    /// Requests a minute; absent: no limit.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub requests_per_minute: Option<u64>,
    /// Calls at the same time; absent: no limit.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub calls_in_flight: Option<u32>,
}

impl AppLimit {
    /// The limits by which calls are admitted.
    pub const fn allowance(&self) -> Allowance {
        Allowance {
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            in_flight: self.calls_in_flight,
        }
    }
}

impl App {
    /// The limits of all that the app does.
    pub const fn allowance(&self) -> Allowance {
        Allowance {
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            in_flight: self.calls_in_flight,
        }
    }

    /// What the app may spend, where that is limited.
    pub fn budget(&self) -> Option<Budget> {
        let Money(per_month) = self.budget_per_month?;
        Some(Budget {
            per_month,
            on_exhausted: self.on_exhausted.unwrap_or_default(),
        })
    }
}

/// An amount of the configuration's currency, not negative; a decimal number as text, because a
/// TOML float is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Money(pub Decimal);

impl FromStr for Money {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let amount = (digits(whole) && digits(fraction))
            .then(|| Decimal::from_str_exact(text).ok())
            .flatten();
        let amount = amount.ok_or("must be a decimal number such as \"2500.00\", not negative")?;
        Ok(Self(amount))
    }
}

impl TryFrom<String> for Money {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// What calls cost.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Chargeback {
    /// The currency of budgets and costs: three capital letters (ISO 4217).
    pub currency: String,
    /// Who bears what nobody used of a PTU.
    pub idle: Idle,
    /// The Event Hub that usage events go to, `https://NAMESPACE.servicebus.windows.net/HUB`, with the
    /// gateway's own identity. Absent: the gateway writes the rows itself.
    #[schemars(with = "Option<String>")]
    pub event_hub: Option<Hub>,
    /// How long usage events gather before they are sent or written, ms: what a process that is
    /// killed may lose.
    #[schemars(range(min = 1, max = 10_000))]
    pub gather_ms: u64,
    /// Whether a call's event lasts before the end of its answer is handed on, so that a process
    /// that is killed loses none. It costs each call a wait for the disk.
    pub durable: bool,
    /// The folder in which events wait that can't be delivered; it has to outlast the process.
    /// Absent: one below the system's folder for temporary files, or in that of the embedded store.
    pub spool: Option<PathBuf>,
    /// Most events that wait there, MiB; further ones are dropped, counted and logged.
    #[schemars(range(min = 1, max = 65_536))]
    pub spool_mb: u64,
    /// Whether Azure's list prices are read once a day from https://prices.azure.com and changes of the
    /// list proposed, to be seen with `spillway bill --price-proposals`. Nothing is changed by it.
    pub check_prices: bool,
    /// Whether Microsoft Graph is asked for the names of apps that are known by an Entra application
    /// id only, so that bills show them; figures go by the id.
    pub graph_names: bool,
    /// Whether what each deployment served is compared with Azure Monitor's count once a day. Of backends
    /// with a `resource_id`; needs `[storage] tables`.
    pub reconcile: bool,
    /// A day on which a deployment's prompt or generated tokens differ by more than so many percent of
    /// Azure's count is logged.
    #[schemars(range(min = 0, max = 100))]
    pub drift_percent: u32,
}

impl Default for Chargeback {
    fn default() -> Self {
        Self {
            currency: "USD".into(),
            idle: Idle::default(),
            event_hub: None,
            gather_ms: 200,
            durable: false,
            spool: None,
            spool_mb: 256,
            check_prices: false,
            graph_names: false,
            reconcile: false,
            drift_percent: 2,
        }
    }
}

/// Whether a text has the form of a currency's code.
pub(super) fn is_currency(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_a_decimal_number_and_nothing_else() {
        let read = |text: &str| {
            text.parse::<Money>()
                .map(|Money(amount)| amount.to_string())
        };
        assert_eq!(read("2500.00"), Ok("2500.00".into()));
        assert_eq!(read("0"), Ok("0".into()));
        for text in [
            "", ".", "1.", ".5", "-1", "+1", "1e3", "1_000", "1,5", "NaN", " 1",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
        let too_fine = format!("0.{}", "1".repeat(40));
        assert!(read(&too_fine).is_err(), "nothing is rounded");
    }
}
