//! A cost is exact, whatever the tokens and the prices.

use proptest::prelude::*;

use super::*;

fn any_price() -> impl Strategy<Value = Price> {
    (0i64..1_000_000_000_000)
        .prop_map(|millionths| Price::new(Decimal::new(millionths, 6)).unwrap())
}

prop_compose! {
    fn any_prices()(
        input in any_price(),
        cached_input in prop::option::of(any_price()),
        output in any_price(),
        reasoning in prop::option::of(any_price()),
        audio_input in any_price(),
        audio_output in any_price(),
        image_input in prop::option::of(any_price()),
        cached_audio_input in prop::option::of(any_price()),
        cached_image_input in prop::option::of(any_price()),
    ) -> TokenPrices {
        TokenPrices {
            input, cached_input, output, reasoning, image_input, cached_audio_input, cached_image_input,
            audio_input: Some(audio_input),
            audio_output: Some(audio_output),
        }
    }
}

prop_compose! {
    /// Tokens whose parts fit: no more cached ones of a sort than there are of it.
    fn any_tokens()(parts in prop::array::uniform9(0u64..50_000_000)) -> Tokens {
        let [text, cached_text, image, cached_image, audio, cached_audio, out, reasoning, audio_output] = parts;
        let (image_input, audio_input) = (image + cached_image, audio + cached_audio);
        Tokens {
            input: text + cached_text + image_input + audio_input,
            output: out + reasoning + audio_output,
            cached: cached_text + cached_image + cached_audio,
            reasoning, audio_input, audio_output, image_input, cached_audio, cached_image,
        }
    }
}

/// The cost as one would reckon it with decimals, sort by sort.
fn reckoned(p: &TokenPrices, t: &Tokens) -> Decimal {
    let million = dec("1000000");
    let part = |count: u64, price: Price| Decimal::from(count) * price.amount() / million;
    let cached_text = t.cached - t.cached_image - t.cached_audio;
    let text_in = t.input - t.image_input - t.audio_input - cached_text;
    let text_out = t.output - t.reasoning - t.audio_output;
    let (image, audio) = (p.image_input.unwrap_or(p.input), p.audio_input.unwrap());
    part(text_in, p.input)
        + part(cached_text, p.cached_input.unwrap_or(p.input))
        + part(t.image_input - t.cached_image, image)
        + part(t.cached_image, p.cached_image_input.unwrap_or(image))
        + part(t.audio_input - t.cached_audio, audio)
        + part(t.cached_audio, p.cached_audio_input.unwrap_or(audio))
        + part(text_out, p.output)
        + part(t.reasoning, p.reasoning.unwrap_or(p.output))
        + part(t.audio_output, p.audio_output.unwrap())
}

proptest! {
    #[test]
    fn a_cost_is_what_each_sort_costs_by_itself(prices in any_prices(), tokens in any_tokens()) {
        prop_assert_eq!(prices.cost(&tokens), Some(reckoned(&prices, &tokens)));
    }

    #[test]
    fn two_calls_cost_what_both_cost_in_one(prices in any_prices(), a in any_tokens(), b in any_tokens()) {
        let both = Tokens {
            input: a.input + b.input,
            output: a.output + b.output,
            cached: a.cached + b.cached,
            reasoning: a.reasoning + b.reasoning,
            audio_input: a.audio_input + b.audio_input,
            audio_output: a.audio_output + b.audio_output,
            image_input: a.image_input + b.image_input,
            cached_audio: a.cached_audio + b.cached_audio,
            cached_image: a.cached_image + b.cached_image,
        };
        let sum = prices.cost(&a).unwrap() + prices.cost(&b).unwrap();
        prop_assert_eq!(prices.cost(&both), Some(sum));
    }

    #[test]
    fn no_tokens_however_odd_upset_the_reckoning(
        prices in any_prices(),
        counts in prop::array::uniform9(any::<u64>()),
    ) {
        let [input, output, cached, reasoning, audio_input, audio_output, image_input, cached_audio, cached_image] = counts;
        let tokens = Tokens {
            input, output, cached, reasoning, audio_input, audio_output, image_input, cached_audio, cached_image,
        };
        let cost = prices.cost(&tokens);
        prop_assert!(cost.is_none_or(|cost| cost >= Decimal::ZERO));
    }
}
