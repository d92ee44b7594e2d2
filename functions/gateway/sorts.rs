//! A call's tokens, taken apart into sorts of which each has its own price.

use super::event::Tokens;

/// Tokens by sorts that do not overlap: each token of a call is of one of them. What a call's counts say
/// beyond what can be is left out, so that no part is more than its whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sorts {
    /// Text in the prompt.
    pub text: u64,
    /// Text in the prompt that came from the prompt cache.
    pub cached_text: u64,
    /// Images in the prompt.
    pub image: u64,
    /// Images in the prompt that came from the prompt cache.
    pub cached_image: u64,
    /// Audio in the prompt.
    pub audio: u64,
    /// Audio in the prompt that came from the prompt cache.
    pub cached_audio: u64,
    /// Text generated.
    pub text_output: u64,
    /// Generated tokens spent on reasoning.
    pub reasoning: u64,
    /// Audio generated.
    pub audio_output: u64,
}

impl Sorts {
    /// The sorts of `tokens`. Cached tokens of which the answer does not say what they were are taken for
    /// text as far as there is text in the prompt; the rest of them counts as not cached.
    pub fn of(tokens: &Tokens) -> Self {
        let audio = tokens.audio_input.min(tokens.input);
        let image = tokens.image_input.min(tokens.input - audio);
        let text = tokens.input - audio - image;
        let cached_audio = tokens.cached_audio.min(audio).min(tokens.cached);
        let cached = tokens.cached - cached_audio;
        let cached_image = tokens.cached_image.min(image).min(cached);
        let cached_text = (cached - cached_image).min(text);
        let audio_output = tokens.audio_output.min(tokens.output);
        let reasoning = tokens.reasoning.min(tokens.output - audio_output);
        Self {
            text: text - cached_text,
            cached_text,
            image: image - cached_image,
            cached_image,
            audio: audio - cached_audio,
            cached_audio,
            text_output: tokens.output - audio_output - reasoning,
            reasoning,
            audio_output,
        }
    }

    /// The tokens of these sorts.
    pub const fn tokens(&self) -> Tokens {
        let image_input = self.image.saturating_add(self.cached_image);
        let audio_input = self.audio.saturating_add(self.cached_audio);
        let text_input = self.text.saturating_add(self.cached_text);
        let text_cached = self.cached_text.saturating_add(self.cached_image);
        let generated = self.text_output.saturating_add(self.reasoning);
        Tokens {
            input: text_input
                .saturating_add(image_input)
                .saturating_add(audio_input),
            output: generated.saturating_add(self.audio_output),
            cached: text_cached.saturating_add(self.cached_audio),
            reasoning: self.reasoning,
            audio_input,
            audio_output: self.audio_output,
            image_input,
            cached_audio: self.cached_audio,
            cached_image: self.cached_image,
        }
    }

    /// Each sort, changed by itself.
    #[must_use]
    pub fn map(&self, change: impl Fn(u64) -> u64) -> Self {
        Self {
            text: change(self.text),
            cached_text: change(self.cached_text),
            image: change(self.image),
            cached_image: change(self.cached_image),
            audio: change(self.audio),
            cached_audio: change(self.cached_audio),
            text_output: change(self.text_output),
            reasoning: change(self.reasoning),
            audio_output: change(self.audio_output),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cached_tokens_are_of_the_sort_that_the_answer_says() {
        let tokens = Tokens {
            input: 100,
            audio_input: 60,
            image_input: 10,
            cached: 50,
            cached_audio: 30,
            cached_image: 4,
            ..Tokens::default()
        };
        let sorts = Sorts::of(&tokens);
        assert_eq!((sorts.text, sorts.cached_text), (14, 16));
        assert_eq!((sorts.image, sorts.cached_image), (6, 4));
        assert_eq!((sorts.audio, sorts.cached_audio), (30, 30));
        assert_eq!(sorts.tokens(), tokens);
    }

    #[test]
    fn cached_tokens_of_no_sort_are_text_as_far_as_there_is_text() {
        let tokens = Tokens {
            input: 100,
            audio_input: 60,
            cached: 50,
            ..Tokens::default()
        };
        let sorts = Sorts::of(&tokens);
        assert_eq!((sorts.text, sorts.cached_text), (0, 40));
        assert_eq!((sorts.audio, sorts.cached_audio), (60, 0));
    }

    proptest! {
        #[test]
        fn each_token_is_of_one_sort_however_odd_the_counts(
            counts in prop::array::uniform9(prop_oneof![0..100_u64, any::<u64>()]),
        ) {
            let [input, output, cached, reasoning, audio_input, audio_output, image_input, cached_audio, cached_image] = counts;
            let odd = Tokens {
                input, output, cached, reasoning, audio_input, audio_output, image_input, cached_audio, cached_image,
            };
            let sorts = Sorts::of(&odd);
            let tokens = sorts.tokens();
            prop_assert_eq!((tokens.input, tokens.output), (input, output));
            prop_assert!(tokens.cached <= cached.min(input));
            prop_assert!(tokens.cached_audio <= tokens.audio_input);
            prop_assert!(tokens.cached_image <= tokens.image_input);
            prop_assert!(tokens.cached_audio + tokens.cached_image <= tokens.cached);
            prop_assert_eq!(Sorts::of(&tokens), sorts);
        }
    }
}
