//! A line of a bill, and the figures on it.

use std::sync::Arc;

use rust_decimal::Decimal;

use super::BillError;
use crate::gateway::event::Tokens;

/// What some calls come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Calls.
    pub calls: u64,
    /// Calls that failed.
    pub failed_calls: u64,
    /// Calls that a full PTU passed on to pay-as-you-go.
    pub spilled_calls: u64,
    /// Calls of pay-as-you-go that no price is known of: their cost is missing from `cost`. Those of which only
    /// the service tier that processed them has none are in it as standard ones.
    pub unpriced_calls: u64,
    /// Calls whose tokens the gateway estimated.
    pub estimated_calls: u64,
    /// Tokens by sort.
    pub tokens: Tokens,
    /// Tokens of spilled calls.
    pub spilled_tokens: u64,
    /// What pay-as-you-go cost.
    pub cost: Decimal,
    /// The part of that of spilled calls.
    pub spilled_cost: Decimal,
    /// Calls that were given a kept answer.
    pub hit_calls: u64,
    /// Calls that were given the answer of the same call, which was under way.
    pub coalesced_calls: u64,
    /// Input and output tokens that calls were spared so.
    pub saved_tokens: u64,
    /// What those would have cost at pay-as-you-go deployments.
    pub saved_cost: Decimal,
}

/// A line of a bill.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// What it is for: a value for each thing that the bill is broken down by.
    pub of: Vec<Arc<str>>,
    /// Whether it is what nobody used of a PTU.
    pub is_idle: bool,
    /// What its calls come to.
    pub figures: Figures,
    /// Weighted tokens at PTUs.
    pub weighted: u64,
    /// Its share of what PTUs cost.
    pub ptu_cost: Decimal,
    /// The part of those at PTUs that have no price: their cost is missing from `ptu_cost`.
    pub unpriced_weighted: u64,
}

impl Figures {
    /// Adds these.
    ///
    /// # Errors
    /// [`BillError::TooLarge`]; the figures are worth nothing then.
    pub fn add(&mut self, other: &Self) -> Result<(), BillError> {
        let pairs = [
            (&mut self.calls, other.calls),
            (&mut self.failed_calls, other.failed_calls),
            (&mut self.spilled_calls, other.spilled_calls),
            (&mut self.unpriced_calls, other.unpriced_calls),
            (&mut self.estimated_calls, other.estimated_calls),
            (&mut self.spilled_tokens, other.spilled_tokens),
            (&mut self.tokens.input, other.tokens.input),
            (&mut self.tokens.output, other.tokens.output),
            (&mut self.tokens.cached, other.tokens.cached),
            (&mut self.tokens.reasoning, other.tokens.reasoning),
            (&mut self.tokens.audio_input, other.tokens.audio_input),
            (&mut self.tokens.audio_output, other.tokens.audio_output),
            (&mut self.tokens.image_input, other.tokens.image_input),
            (&mut self.tokens.cached_audio, other.tokens.cached_audio),
            (&mut self.tokens.cached_image, other.tokens.cached_image),
            (&mut self.hit_calls, other.hit_calls),
            (&mut self.coalesced_calls, other.coalesced_calls),
            (&mut self.saved_tokens, other.saved_tokens),
        ];
        for (sum, count) in pairs {
            add_count(sum, count)?;
        }
        add_amount(&mut self.cost, other.cost)?;
        add_amount(&mut self.spilled_cost, other.spilled_cost)?;
        add_amount(&mut self.saved_cost, other.saved_cost)
    }
}

impl Line {
    /// All that it comes to.
    ///
    /// # Errors
    /// [`BillError::TooLarge`].
    pub fn cost(&self) -> Result<Decimal, BillError> {
        let mut cost = self.figures.cost;
        add_amount(&mut cost, self.ptu_cost)?;
        Ok(cost)
    }

    /// Adds what was used of a PTU, and what that cost.
    pub(super) fn add_ptu(
        &mut self,
        weighted: u64,
        cost: Decimal,
        is_unpriced: bool,
    ) -> Result<(), BillError> {
        add_count(&mut self.weighted, weighted)?;
        if is_unpriced {
            add_count(&mut self.unpriced_weighted, weighted)?;
        }
        add_amount(&mut self.ptu_cost, cost)
    }

    /// Adds another line.
    ///
    /// # Errors
    /// [`BillError::TooLarge`].
    pub fn add(&mut self, other: &Self) -> Result<(), BillError> {
        self.figures.add(&other.figures)?;
        add_count(&mut self.weighted, other.weighted)?;
        add_count(&mut self.unpriced_weighted, other.unpriced_weighted)?;
        add_amount(&mut self.ptu_cost, other.ptu_cost)
    }
}

fn add_count(sum: &mut u64, count: u64) -> Result<(), BillError> {
    *sum = sum.checked_add(count).ok_or(BillError::TooLarge)?;
    Ok(())
}

/// Adds an amount exactly. A decimal that runs out of digits is rounded, without a word: that is
/// found by going back.
///
/// # Errors
/// [`BillError::TooLarge`].
pub fn add_amount(sum: &mut Decimal, amount: Decimal) -> Result<(), BillError> {
    let before = *sum;
    let after = before.checked_add(amount).ok_or(BillError::TooLarge)?;
    let back = after.checked_sub(amount).ok_or(BillError::TooLarge)?;
    if back != before {
        return Err(BillError::TooLarge);
    }
    *sum = after;
    Ok(())
}
