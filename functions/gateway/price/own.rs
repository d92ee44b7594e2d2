//! The configuration's own prices: what was agreed with Azure, or stands in no list.

use std::cmp::Reverse;
use std::sync::Arc;

use super::rate::{Price, TokenPrices};
use super::{PricedDeployment, RegionClass, Row};
use crate::gateway::service_tier::ServiceTier;
use crate::gateway::time::Timestamp;

/// A `[[price]]` of the configuration. What it does not name it is for all of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnPrice {
    /// Only for this model: the one that apps ask for, or Azure's name of it.
    pub model: Option<Arc<str>>,
    /// Only for deployments of this backend.
    pub backend: Option<Arc<str>>,
    /// Only for deployments of this class.
    pub region_class: Option<RegionClass>,
    /// Since when; [`Timestamp::default`]: always.
    pub from: Timestamp,
    /// Only for calls that this tier processed.
    pub tier: ServiceTier,
    /// Pay-as-you-go: prices of a million tokens.
    pub tokens: Option<TokenPrices>,
    /// Provisioned: what one PTU costs an hour.
    pub ptu_hour: Option<Price>,
}

impl OwnPrice {
    fn is_for(&self, of: &PricedDeployment) -> bool {
        let model = self.model.as_ref();
        let model = model.is_none_or(|name| *name == of.model || *name == of.base_model);
        let backend = self.backend.as_ref();
        let backend = backend.is_none_or(|name| *name == of.backend);
        let class = self.region_class;
        model && backend && class.is_none_or(|class| class == of.region_class)
    }

    /// How narrowly it is meant: what names more is better, a backend before a model before a class.
    const fn narrowness(&self) -> u8 {
        let backend = self.backend.is_some() as u8;
        let model = self.model.is_some() as u8;
        let class = self.region_class.is_some() as u8;
        backend * 4 + model * 2 + class
    }
}

/// The prices of a deployment's tokens, the best first: narrower ones, then later ones.
pub(super) fn rows(own: &[OwnPrice], of: &PricedDeployment) -> Vec<Row> {
    let mut fit: Vec<&OwnPrice> = own.iter().filter(|price| price.is_for(of)).collect();
    fit.sort_by_key(|price| Reverse((price.narrowness(), price.from)));
    let rows = fit.into_iter().filter_map(|price| {
        price.tokens.map(|tokens| Row {
            from: price.from,
            up_to: u64::MAX,
            tier: price.tier,
            tokens,
        })
    });
    rows.collect()
}

/// What an hour of one of a deployment's PTUs costs.
pub(super) fn ptu_hour(own: &[OwnPrice], of: &PricedDeployment, at: Timestamp) -> Option<Price> {
    let fit = own
        .iter()
        .filter(|price| price.is_for(of) && price.from <= at && price.ptu_hour.is_some());
    let best = fit.max_by_key(|price| (price.narrowness(), price.from));
    best.and_then(|price| price.ptu_hour)
}
