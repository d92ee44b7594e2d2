//! How calls share the tokens of an answer that they got together.

use crate::gateway::event::Tokens;
use crate::gateway::sorts::Sorts;

/// The part of `tokens` that falls to call `index` of `calls`: of each sort as many as to any other, and
/// one of what is left over to each of the first calls. All parts together are the tokens.
///
/// What is divided are sorts that don't overlap ([`Sorts`]), each of which has its own price: so the costs of
/// the parts add up to that of the whole, too.
pub fn part(tokens: &Tokens, calls: u64, index: u64) -> Tokens {
    let of = |count: u64| {
        let calls = calls.max(1);
        count / calls + u64::from(index < count % calls)
    };
    let sorts = Sorts::of(tokens);
    let mut part = sorts.map(of).tokens();
    // Cached tokens that are of no sort have no price of their own, but weigh nothing at a PTU.
    let of_no_sort = tokens
        .cached
        .min(tokens.input)
        .saturating_sub(sorts.tokens().cached);
    let image = of_no_sort.min(sorts.image);
    part.cached = part
        .cached
        .saturating_add(of(image) + of(of_no_sort - image));
    part
}

/// What of `whole` is not in `part`.
pub const fn rest(whole: &Tokens, part: &Tokens) -> Tokens {
    Tokens {
        input: whole.input.saturating_sub(part.input),
        output: whole.output.saturating_sub(part.output),
        cached: whole.cached.saturating_sub(part.cached),
        reasoning: whole.reasoning.saturating_sub(part.reasoning),
        audio_input: whole.audio_input.saturating_sub(part.audio_input),
        audio_output: whole.audio_output.saturating_sub(part.audio_output),
        image_input: whole.image_input.saturating_sub(part.image_input),
        cached_audio: whole.cached_audio.saturating_sub(part.cached_audio),
        cached_image: whole.cached_image.saturating_sub(part.cached_image),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gateway::price::{Price, TokenPrices};

    fn tokens() -> impl Strategy<Value = Tokens> {
        let count = || 0..5000_u64;
        let rest = (count(), count(), count(), count(), count());
        let cached = (count(), count());
        let all = ((count(), count()), rest, cached);
        all.prop_map(|((input, output), (a, b, c, d, e), (f, g))| Tokens {
            input,
            output,
            cached: a,
            reasoning: b,
            audio_input: c,
            audio_output: d,
            image_input: e,
            cached_audio: f,
            cached_image: g,
        })
    }

    #[test]
    fn what_is_left_over_goes_to_the_first() {
        let whole = Tokens {
            input: 10,
            output: 4,
            cached: 2,
            ..Tokens::default()
        };
        let parts = [0, 1, 2].map(|index| part(&whole, 3, index));
        assert_eq!(parts.map(|part| part.input), [4, 4, 2]);
        assert_eq!(parts.map(|part| part.output), [2, 1, 1]);
        assert_eq!(parts.map(|part| part.cached), [1, 1, 0]);
        assert_eq!(rest(&whole, &parts[0]).total(), 8);
        assert_eq!(part(&whole, 1, 0), whole);
    }

    proptest! {
        #[test]
        fn tokens_and_costs_of_the_parts_add_up(whole in tokens(), calls in 1..130_u64) {
            let price = |text| Price::parse(text).unwrap();
            let prices = TokenPrices {
                input: price("2.50"),
                cached_input: Some(price("1.25")),
                output: price("10"),
                reasoning: Some(price("11")),
                audio_input: Some(price("40")),
                audio_output: Some(price("80")),
                image_input: Some(price("5")),
                cached_audio_input: Some(price("2.50")),
                cached_image_input: Some(price("0.50")),
            };
            let parts: Vec<Tokens> = (0..calls).map(|index| part(&whole, calls, index)).collect();
            prop_assert_eq!(parts.iter().map(|part| part.input).sum::<u64>(), whole.input);
            prop_assert_eq!(parts.iter().map(|part| part.output).sum::<u64>(), whole.output);
            let cached = parts.iter().map(|part| part.cached).sum::<u64>();
            prop_assert_eq!(cached, whole.cached.min(whole.input), "what weighs nothing at a PTU");
            prop_assert!(parts.iter().all(|part| part.cached <= part.input));
            let cost = parts.iter().map(|part| prices.cost(part).unwrap()).sum();
            prop_assert_eq!(prices.cost(&whole), Some(cost));
        }
    }
}
