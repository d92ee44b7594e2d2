//! What a simulated model answers: made-up text that follows from the prompt, or a tool call.

use serde_json::{Value, json};

use super::input::{ResponseFormat, Tool, ToolChoice};
use super::schema;
use super::tokens::{self, Prompt};

/// A prompt with this and a number after it is answered with so many tokens:
/// `simulate-tokens:500`.
pub const TOKENS_PHRASE: &str = "simulate-tokens:";

/// The longest answer, in tokens.
const MAX_TOKENS: u64 = 16_384;

/// Words of an answer of a wanted length: each is one token.
const FILLER: [&str; 10] = [
    "This", " answer", " has", " as", " many", " tokens", " as", " it", " was", " asked",
];

/// What the model generated.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Text(Text),
    Call(ToolCall),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) tokens: u64,
    /// Whether `max_tokens` cut it.
    pub(super) cut: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ToolCall {
    pub(super) name: String,
    /// JSON text by the tool's schema.
    pub(super) arguments: String,
    pub(super) tokens: u64,
}

impl Answer {
    pub(super) fn tokens(&self) -> u64 {
        match self {
            Self::Text(text) => text.tokens,
            Self::Call(call) => call.tokens,
        }
    }
}

/// What a request says about the answer it wants.
#[derive(Debug, Default)]
pub(super) struct Wishes<'a> {
    pub(super) tools: &'a [Tool],
    pub(super) choice: ToolChoice,
    /// Whether the user spoke last, and not a tool.
    pub(super) users_turn: bool,
    pub(super) format: ResponseFormat,
    pub(super) max_tokens: Option<u64>,
    /// Which turn of a remembered conversation this is; 1 is the first.
    pub(super) turn: u32,
}

/// Makes the answer to `prompt`. The same prompt and wishes give the same answer.
pub(super) fn answer(prompt: &Prompt, wishes: &Wishes<'_>) -> Answer {
    if let Some(tool) = tool_to_call(prompt, wishes) {
        let arguments = schema::sample(&tool.parameters).to_string();
        let tokens = tokens::count(&arguments);
        return Answer::Call(ToolCall {
            name: tool.name.clone(),
            arguments,
            tokens,
        });
    }
    let text = match &wishes.format {
        ResponseFormat::Text => words(prompt, wishes.turn),
        ResponseFormat::JsonObject => json!({ "answer": words(prompt, wishes.turn) }).to_string(),
        ResponseFormat::JsonSchema(schema) => schema::sample(schema).to_string(),
    };
    Answer::Text(cut(text, wishes.max_tokens))
}

fn tool_to_call<'a>(prompt: &Prompt, wishes: &Wishes<'a>) -> Option<&'a Tool> {
    match &wishes.choice {
        ToolChoice::None => None,
        ToolChoice::Required => wishes.tools.first(),
        ToolChoice::Named(name) => wishes.tools.iter().find(|tool| tool.name == *name),
        ToolChoice::Auto if wishes.users_turn => {
            let message = prompt.last.to_lowercase();
            wishes
                .tools
                .iter()
                .find(|tool| is_asked_for(&tool.name, &message))
        }
        ToolChoice::Auto => None,
    }
}

/// Whether a word of the tool's name stands in the message: "weather" asks for `get_weather`.
fn is_asked_for(name: &str, message: &str) -> bool {
    let words = name.split(|c: char| !c.is_alphanumeric());
    words
        .filter(|word| word.len() >= 4)
        .any(|word| message.contains(&word.to_lowercase()))
}

fn words(prompt: &Prompt, turn: u32) -> String {
    if let Some(wanted) = wanted_tokens(&prompt.last) {
        let wanted = usize::try_from(wanted.min(MAX_TOKENS)).unwrap_or_default();
        return FILLER
            .iter()
            .copied()
            .cycle()
            .take(wanted)
            .collect::<String>();
    }
    let said = prompt.last.trim();
    if turn > 1 {
        format!("This is turn {turn} of a simulated conversation. You said: {said}")
    } else {
        format!("This is a simulated answer. You said: {said}")
    }
}

fn wanted_tokens(message: &str) -> Option<u64> {
    let (_, after) = message.split_once(TOKENS_PHRASE)?;
    let digits = after
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(after.len());
    after.get(..digits)?.parse().ok()
}

fn cut(text: String, max_tokens: Option<u64>) -> Text {
    let tokens = tokens::count(&text);
    let most = max_tokens.unwrap_or(MAX_TOKENS).min(MAX_TOKENS);
    if tokens <= most {
        return Text {
            text,
            tokens,
            cut: false,
        };
    }
    let kept = usize::try_from(most).unwrap_or_default();
    let text = tokens::split(&text).take(kept).collect();
    Text {
        text,
        tokens: most,
        cut: true,
    }
}

/// The verdict of a content filter that found nothing.
pub(super) fn clean_filter() -> Value {
    let safe = json!({ "filtered": false, "severity": "safe" });
    json!({ "hate": safe, "self_harm": safe, "sexual": safe, "violence": safe })
}

/// The verdict on the prompt, as answers carry it.
pub(super) fn clean_prompt() -> Value {
    let mut verdict = clean_filter();
    if let Some(verdicts) = verdict.as_object_mut() {
        let jailbreak = json!({ "detected": false, "filtered": false });
        verdicts.insert("jailbreak".to_owned(), jailbreak);
    }
    json!([{ "prompt_index": 0, "content_filter_results": verdict }])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(text: &str) -> Prompt {
        let mut prompt = Prompt::default();
        prompt.add(text);
        prompt
    }

    fn text_of(answer: Answer) -> Text {
        match answer {
            Answer::Text(text) => text,
            Answer::Call(call) => panic!("a call of {}", call.name),
        }
    }

    #[test]
    fn an_answer_has_as_many_tokens_as_the_prompt_wants_and_max_tokens_allows() {
        let p = prompt("please simulate-tokens:123 and no more");
        let text = text_of(answer(&p, &Wishes::default()));
        assert_eq!(
            (text.tokens, tokens::count(&text.text), text.cut),
            (123, 123, false)
        );
        let wishes = Wishes {
            max_tokens: Some(7),
            ..Wishes::default()
        };
        let text = text_of(answer(&p, &wishes));
        assert_eq!(
            (text.tokens, tokens::count(&text.text), text.cut),
            (7, 7, true)
        );
        let p = prompt("simulate-tokens:99999999999");
        assert_eq!(text_of(answer(&p, &Wishes::default())).tokens, MAX_TOKENS);
    }

    #[test]
    fn a_tool_is_called_when_the_user_asks_for_it_or_it_is_forced() {
        let tools = [Tool {
            name: "get_weather".to_owned(),
            parameters: json!({}),
        }];
        let called = |message: &str, choice, users_turn| {
            let wishes = Wishes {
                tools: &tools,
                choice,
                users_turn,
                ..Wishes::default()
            };
            matches!(answer(&prompt(message), &wishes), Answer::Call(_))
        };
        let named = |name: &str| ToolChoice::Named(name.to_owned());
        assert!(called("How is the Weather?", ToolChoice::Auto, true));
        assert!(!called("How are you?", ToolChoice::Auto, true));
        assert!(!called("weather: 12 degrees", ToolChoice::Auto, false));
        assert!(!called("How is the weather?", ToolChoice::None, true));
        assert!(called("How are you?", ToolChoice::Required, false));
        assert!(called("How are you?", named("get_weather"), true));
        assert!(!called("How are you?", named("other"), true));
    }
}
