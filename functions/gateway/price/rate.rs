//! A price, and what tokens cost by it: whole numbers inside, so that nothing is rounded.

use rust_decimal::Decimal;

use crate::gateway::event::Tokens;
use crate::gateway::sorts::Sorts;

/// Digits after the point that a price may have. Azure's have six at most.
const DECIMALS: u32 = 6;

/// Digits after the point of a cost: those of a price, and the six of a million tokens.
pub const COST_DECIMALS: u32 = DECIMALS + 6;

/// A million of the currency: no token and no PTU costs that much.
const TOO_MUCH: i64 = 1_000_000;

/// A price in the configuration's currency, below a million, in millionths: for a million tokens,
/// or for an hour of one PTU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price(u64);

impl Price {
    /// The price of `amount`. `None` where it is negative, a million or more, or has more than
    /// six digits after the point.
    pub fn new(amount: Decimal) -> Option<Self> {
        let amount = amount.normalize();
        if amount.is_sign_negative() && !amount.is_zero()
            || amount >= Decimal::from(TOO_MUCH)
            || amount.scale() > DECIMALS
        {
            return None;
        }
        let millionths = amount.checked_mul(Decimal::from(10_u64.pow(DECIMALS)))?;
        u64::try_from(millionths).ok().map(Self)
    }

    /// Reads `2.50`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::new(Decimal::from_str_exact(text).ok()?)
    }

    /// The amount.
    pub fn amount(self) -> Decimal {
        decimal(u128::from(self.0), DECIMALS).unwrap_or_default()
    }

    /// What so many cost.
    pub fn times(self, count: u32) -> Option<Decimal> {
        decimal(u128::from(self.0) * u128::from(count), DECIMALS)
    }
}

/// Prices of a million tokens each, by sort. Without one of its own a sort costs what is said of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenPrices {
    /// Prompt tokens.
    pub input: Price,
    /// Prompt tokens from the cache; else as `input`.
    pub cached_input: Option<Price>,
    /// Generated tokens.
    pub output: Price,
    /// Generated tokens spent on reasoning; else as `output`.
    pub reasoning: Option<Price>,
    /// Audio in the prompt; else it has no price.
    pub audio_input: Option<Price>,
    /// Audio generated; else it has no price.
    pub audio_output: Option<Price>,
    /// Images in the prompt; else as `input`.
    pub image_input: Option<Price>,
    /// Audio in the prompt from the cache; else as `audio_input`.
    pub cached_audio_input: Option<Price>,
    /// Images in the prompt from the cache; else as images that are not.
    pub cached_image_input: Option<Price>,
}

impl TokenPrices {
    /// What these tokens cost, exactly. `None` when there is audio among them that has no price,
    /// or when the amount is beyond any reason (7.9 * 10^16).
    ///
    /// Most answers say how many tokens came from the cache, not of which sort they were: those are taken
    /// for text as far as there is text in the prompt, and the rest is charged whole ([`Sorts`]).
    pub fn cost(&self, tokens: &Tokens) -> Option<Decimal> {
        let sorts = Sorts::of(tokens);
        let image = self.image_input.unwrap_or(self.input);
        let parts = [
            (sorts.text, Some(self.input)),
            (
                sorts.cached_text,
                Some(self.cached_input.unwrap_or(self.input)),
            ),
            (sorts.image, Some(image)),
            (
                sorts.cached_image,
                Some(self.cached_image_input.unwrap_or(image)),
            ),
            (sorts.audio, self.audio_input),
            (
                sorts.cached_audio,
                self.cached_audio_input.or(self.audio_input),
            ),
            (sorts.text_output, Some(self.output)),
            (sorts.reasoning, Some(self.reasoning.unwrap_or(self.output))),
            (sorts.audio_output, self.audio_output),
        ];
        let mut total = 0u128;
        for (count, price) in parts {
            if count > 0 {
                let Price(millionths) = price?;
                // 2^64 tokens at 2^40 millionths, nine times, are below 2^128.
                total += u128::from(count) * u128::from(millionths);
            }
        }
        decimal(total, COST_DECIMALS)
    }
}

fn decimal(units: u128, scale: u32) -> Option<Decimal> {
    let units = i128::try_from(units).ok()?;
    let amount = Decimal::try_from_i128_with_scale(units, scale).ok()?;
    Some(amount.normalize())
}
