//! Reads the `usage` of an answer, whichever API wrote it.
//!
//! Field names by API are those of azure-facts, "Usage fields" (from the official Python SDK's
//! types). Every part is optional and unknown ones are skipped; a figure that is no count is 0.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::event::Tokens;

/// The tokens of a `usage` object. `None` when it has no tokens in it: no object, or one that
/// counts seconds (`{"type":"duration"}`).
pub fn parse(usage: &[u8]) -> Option<Tokens> {
    let wire: Wire = serde_json::from_slice(usage).ok()?;
    let named = [
        wire.prompt_tokens,
        wire.input_tokens,
        wire.completion_tokens,
        wire.output_tokens,
    ];
    if wire.total_tokens.is_none() && named.iter().all(Option::is_none) {
        return None;
    }
    let output = larger(wire.completion_tokens, wire.output_tokens);
    let mut input = larger(wire.prompt_tokens, wire.input_tokens);
    if input == 0 {
        // Some answers name only the total.
        input = larger(wire.total_tokens, None).saturating_sub(output);
    }
    let [prompt, input_long, input_short] = [
        wire.prompt_tokens_details,
        wire.input_tokens_details,
        wire.input_token_details,
    ];
    let of_input = prompt.or(input_long).or(input_short).unwrap_or_default();
    let [completion, output_long, output_short] = [
        wire.completion_tokens_details,
        wire.output_tokens_details,
        wire.output_token_details,
    ];
    let of_output = completion
        .or(output_long)
        .or(output_short)
        .unwrap_or_default();
    let of_cached = of_input.cached_tokens_details.unwrap_or_default();
    let cached = larger(of_input.cached_tokens, None).min(input);
    let audio_input = larger(of_input.audio_tokens, None).min(input);
    let image_input = larger(of_input.image_tokens, None).min(input);
    let cached_audio = larger(of_cached.audio_tokens, None);
    let cached_audio = cached_audio.min(audio_input).min(cached);
    let cached_image = larger(of_cached.image_tokens, None);
    Some(Tokens {
        input,
        output,
        cached,
        reasoning: larger(of_output.reasoning_tokens, None).min(output),
        audio_input,
        audio_output: larger(of_output.audio_tokens, None).min(output),
        image_input,
        cached_audio,
        cached_image: cached_image.min(image_input).min(cached - cached_audio),
    })
}

fn larger(a: Option<Count>, b: Option<Count>) -> u64 {
    let count = |c: Option<Count>| c.map_or(0, |Count(n)| n);
    count(a).max(count(b))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    prompt_tokens: Option<Count>,
    input_tokens: Option<Count>,
    completion_tokens: Option<Count>,
    output_tokens: Option<Count>,
    total_tokens: Option<Count>,
    prompt_tokens_details: Option<Details>,
    input_tokens_details: Option<Details>,
    input_token_details: Option<Details>,
    completion_tokens_details: Option<Details>,
    output_tokens_details: Option<Details>,
    output_token_details: Option<Details>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Option<Count>,
    reasoning_tokens: Option<Count>,
    audio_tokens: Option<Count>,
    image_tokens: Option<Count>,
    /// Of which sort the cached ones were: realtime's answers say it.
    cached_tokens_details: Option<CachedDetails>,
}

/// What is neither audio nor image is text.
#[derive(Default, Deserialize)]
#[serde(default)]
struct CachedDetails {
    audio_tokens: Option<Count>,
    image_tokens: Option<Count>,
}

/// A figure that should be a count of tokens; anything else is read as 0.
#[derive(Clone, Copy)]
struct Count(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor).map(Self)
    }
}

struct CountVisitor;

impl<'de> Visitor<'de> for CountVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a count")
    }

    fn visit_u64<E>(self, n: u64) -> Result<u64, E> {
        Ok(n)
    }

    fn visit_i64<E>(self, n: i64) -> Result<u64, E> {
        Ok(u64::try_from(n).unwrap_or(0))
    }

    fn visit_f64<E>(self, n: f64) -> Result<u64, E> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float saturates, negative ones at 0"
        )]
        let count = n as u64;
        Ok(count)
    }

    fn visit_str<E>(self, text: &str) -> Result<u64, E> {
        Ok(text.trim().parse().unwrap_or(0))
    }

    fn visit_bool<E>(self, _: bool) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<u64, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<u64, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Option<Tokens> {
        parse(json.as_bytes())
    }

    #[test]
    fn chat_usage_with_its_details() {
        let usage = r#"{"prompt_tokens":120,"completion_tokens":100,"total_tokens":220,
            "prompt_tokens_details":{"cached_tokens":64,"audio_tokens":3,"image_tokens":9},
            "completion_tokens_details":{"reasoning_tokens":90,"audio_tokens":1,"accepted_prediction_tokens":0}}"#;
        let tokens = Tokens {
            input: 120,
            output: 100,
            cached: 64,
            reasoning: 90,
            audio_input: 3,
            audio_output: 1,
            image_input: 9,
            ..Tokens::default()
        };
        assert_eq!(read(usage), Some(tokens));
        assert_eq!(tokens.total(), 220);
    }

    #[test]
    fn responses_embeddings_images_and_transcriptions() {
        let responses = r#"{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":14}"#;
        let tokens = read(responses).unwrap();
        assert_eq!(
            (tokens.input, tokens.cached, tokens.output, tokens.reasoning),
            (9, 4, 5, 2)
        );
        let embeddings = read(r#"{"prompt_tokens":8,"total_tokens":8}"#).unwrap();
        assert_eq!((embeddings.input, embeddings.output), (8, 0));
        let image = read(
            r#"{"input_tokens":50,"output_tokens":4160,"total_tokens":4210,"input_tokens_details":{"image_tokens":40,"text_tokens":10}}"#,
        );
        assert_eq!(image.map(|t| (t.image_input, t.output)), Some((40, 4160)));
        let audio = read(
            r#"{"type":"tokens","input_tokens":14,"output_tokens":3,"total_tokens":17,"input_token_details":{"audio_tokens":14,"text_tokens":0}}"#,
        );
        assert_eq!(audio.map(|t| (t.input, t.audio_input)), Some((14, 14)));
    }

    #[test]
    fn cached_audio_and_images_are_told_from_cached_text() {
        let realtime = r#"{"total_tokens":1100,"input_tokens":1000,"output_tokens":100,"input_token_details":
            {"text_tokens":200,"audio_tokens":700,"image_tokens":100,"cached_tokens":640,
            "cached_tokens_details":{"text_tokens":64,"audio_tokens":512,"image_tokens":64}}}"#;
        let tokens = read(realtime).unwrap();
        assert_eq!(
            (tokens.cached, tokens.cached_audio, tokens.cached_image),
            (640, 512, 64)
        );
        let unsaid = realtime.replace("cached_tokens_details", "other_details");
        let tokens = read(&unsaid).unwrap();
        assert_eq!(
            (tokens.cached, tokens.cached_audio, tokens.cached_image),
            (640, 0, 0)
        );
    }

    #[test]
    fn seconds_are_no_tokens() {
        assert_eq!(read(r#"{"type":"duration","seconds":12}"#), None);
        assert_eq!(read("null"), None);
        assert_eq!(read("{}"), None);
        assert_eq!(read("{\"prompt_tokens\":"), None);
    }

    #[test]
    fn a_total_alone_counts_as_input() {
        assert_eq!(read(r#"{"total_tokens":7}"#).map(|t| t.input), Some(7));
    }

    #[test]
    fn what_is_no_count_is_zero() {
        let odd = r#"{"prompt_tokens":-3,"completion_tokens":2.0,"total_tokens":"9",
            "prompt_tokens_details":{"cached_tokens":[1,{}],"audio_tokens":{"a":1},"image_tokens":true}}"#;
        let tokens = read(odd).unwrap();
        assert_eq!((tokens.input, tokens.output, tokens.cached), (7, 2, 0));
    }

    #[test]
    fn a_part_is_never_more_than_the_whole() {
        let odd = r#"{"prompt_tokens":5,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":9},"completion_tokens_details":{"reasoning_tokens":9}}"#;
        let tokens = read(odd).unwrap();
        assert_eq!((tokens.cached, tokens.reasoning), (5, 1));
    }

    proptest! {
        #[test]
        fn cached_audio_and_images_are_parts_of_what_is_cached_and_of_their_sort(
            counts in prop::array::uniform6(prop_oneof![0..50_u64, any::<u64>()]),
        ) {
            let [input, cached, audio, image, cached_audio, cached_image] = counts;
            let usage = serde_json::json!({"input_tokens": input, "input_token_details": {
                "cached_tokens": cached, "audio_tokens": audio, "image_tokens": image,
                "cached_tokens_details": {"audio_tokens": cached_audio, "image_tokens": cached_image},
            }});
            let tokens = read(&usage.to_string()).unwrap();
            prop_assert!(tokens.cached <= tokens.input);
            prop_assert!(tokens.cached_audio <= tokens.audio_input);
            prop_assert!(tokens.cached_image <= tokens.image_input);
            prop_assert!(tokens.cached_audio + tokens.cached_image <= tokens.cached);
        }

        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(tokens) = parse(&bytes) {
                prop_assert!(tokens.cached <= tokens.input);
            }
        }
    }
}
