//! What things cost: the keys of `[[price]]`, and the prices of a whole configuration.

use std::str::FromStr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Backend, Config, Deployment, PastSize};
use crate::gateway::event::Kind;
use crate::gateway::price::{
    self, OwnPrice, PricedDeployment, Prices, RegionClass, TokenPrices, list,
};
use crate::gateway::service_tier::ServiceTier;
use crate::gateway::time::Timestamp;

/// A price of your own, which wins over the list's: of a million tokens each, or of a PTU's hour. It
/// is for all that it does not name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Only for this model: as apps ask for it, or as Azure names it.
    #[schemars(length(min = 1, max = 64))]
    pub model: Option<String>,
    /// Only for deployments of this backend.
    pub backend: Option<String>,
    /// Only for deployments of this class.
    pub region_class: Option<RegionClass>,
    /// Only for calls that this tier processed, as their answers say; absent: for those of the standard one.
    pub service_tier: Option<ServiceTier>,
    /// Since this day of UTC, for example `"2026-11-01"`; absent: always.
    #[schemars(with = "Option<String>")]
    pub from: Option<Day>,
    /// A million prompt tokens; a decimal number as text, as all prices are, for example `"2.50"`.
    #[schemars(with = "Option<String>")]
    pub input: Option<Amount>,
    /// A million prompt tokens from the cache; absent: as `input`.
    #[schemars(with = "Option<String>")]
    pub cached_input: Option<Amount>,
    /// A million generated tokens.
    #[schemars(with = "Option<String>")]
    pub output: Option<Amount>,
    /// A million generated tokens spent on reasoning; absent: as `output`.
    #[schemars(with = "Option<String>")]
    pub reasoning: Option<Amount>,
    /// A million tokens of audio in the prompt; absent: calls with audio have no price.
    #[schemars(with = "Option<String>")]
    pub audio_input: Option<Amount>,
    /// A million tokens of audio generated; absent: calls that generate audio have no price.
    #[schemars(with = "Option<String>")]
    pub audio_output: Option<Amount>,
    /// A million tokens of images in the prompt; absent: as `input`.
    #[schemars(with = "Option<String>")]
    pub image_input: Option<Amount>,
    /// A million tokens of audio in the prompt from the cache; absent: as `audio_input`.
    #[schemars(with = "Option<String>")]
    pub cached_audio_input: Option<Amount>,
    /// A million tokens of images in the prompt from the cache; absent: as images that are not.
    #[schemars(with = "Option<String>")]
    pub cached_image_input: Option<Amount>,
    /// An hour of one provisioned throughput unit.
    #[schemars(with = "Option<String>")]
    pub ptu_hour: Option<Amount>,
}

/// The keys of token prices, `input` and `output` first: those are needed.
pub(super) const TOKEN_PRICES: [&str; 9] = [
    "input",
    "output",
    "cached_input",
    "reasoning",
    "audio_input",
    "audio_output",
    "image_input",
    "cached_audio_input",
    "cached_image_input",
];

impl Price {
    fn own(&self) -> OwnPrice {
        OwnPrice {
            model: self.model.as_deref().map(Arc::from),
            backend: self.backend.as_deref().map(Arc::from),
            region_class: self.region_class,
            from: self.from.map_or(Timestamp::default(), |Day(from)| from),
            tier: self.service_tier.unwrap_or_default(),
            tokens: self.tokens(),
            ptu_hour: self.ptu_hour.map(|Amount(price)| price),
        }
    }

    fn tokens(&self) -> Option<TokenPrices> {
        let price = |amount: Option<Amount>| amount.map(|Amount(price)| price);
        Some(TokenPrices {
            input: price(self.input)?,
            output: price(self.output)?,
            cached_input: price(self.cached_input),
            reasoning: price(self.reasoning),
            audio_input: price(self.audio_input),
            audio_output: price(self.audio_output),
            image_input: price(self.image_input),
            cached_audio_input: price(self.cached_audio_input),
            cached_image_input: price(self.cached_image_input),
        })
    }
}

impl Config {
    /// The prices of all deployments.
    pub fn prices(&self) -> Prices {
        let deployments = self.backends.iter().flat_map(|backend| {
            let each = backend.deployments.iter().chain(&backend.deleted);
            each.map(move |deployment| priced(backend, deployment))
        });
        let own = self.prices.iter().map(Price::own).collect();
        Prices::new(deployments, own, &self.chargeback.currency)
    }
}

fn priced(backend: &Backend, deployment: &Deployment) -> PricedDeployment {
    let model = deployment.model();
    let ptus = deployment.ptus.filter(|_| deployment.kind == Kind::Ptu);
    PricedDeployment {
        backend: backend.name.as_str().into(),
        name: deployment.name.as_str().into(),
        model: model.into(),
        base_model: deployment.base_model().into(),
        kind: deployment.kind,
        region_class: deployment.region_class,
        region: region(backend.region.as_deref().unwrap_or_default()).into(),
        ptus: ptus.unwrap_or(0),
        before: before(&deployment.before),
        since: deployment
            .since
            .map_or(Timestamp::default(), |Day(since)| since),
        deleted: deployment.deleted.map(|Day(deleted)| deleted),
    }
}

fn before(sizes: &[PastSize]) -> Vec<(Timestamp, u32)> {
    let mut before: Vec<_> = sizes.iter().map(|size| (size.until.0, size.ptus)).collect();
    before.sort_unstable();
    before
}

/// A region by the name that the list has, however it is written: `Sweden Central`.
fn region(text: &str) -> String {
    let letters = text.chars().filter(|c| !c.is_whitespace());
    letters.flat_map(char::to_lowercase).collect()
}

/// A price, as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Amount(pub price::Price);

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let price = plain.then(|| price::Price::parse(text)).flatten();
        price.map(Self).ok_or_else(|| {
            "must be a decimal number below a million such as \"2.50\", with at most six digits after the point".into()
        })
    }
}

impl TryFrom<String> for Amount {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A day of UTC, as text: its first moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Day(pub Timestamp);

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let day = list::day(text).map(Self);
        day.ok_or_else(|| "must be a day such as \"2026-11-01\"".into())
    }
}

impl TryFrom<String> for Day {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}
