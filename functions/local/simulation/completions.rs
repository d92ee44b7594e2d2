//! `completions`: the older text API.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{self, Answer, Wishes};
use super::chat::{self, StreamOptions};
use super::errors::WireError;
use super::input::{self, in_range};
use super::pace::{self, Event};
use super::resource::{Resource, new_id};
use super::route::Route;
use super::tokens::{OwnedTokens, Prompt};

/// Prompts that one call may hold: OpenAI's limit for arrays of inputs.
const MAX_PROMPTS: usize = 2048;

/// What the real API generates without `max_tokens`.
const DEFAULT_MAX_TOKENS: u64 = 16;

#[derive(Deserialize)]
struct CompletionRequest {
    prompt: Option<Value>,
    model: Option<String>,
    max_tokens: Option<i64>,
    n: Option<i64>,
    temperature: Option<f64>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
}

pub(super) async fn create(
    resource: &Arc<Resource>,
    route: &Route,
    body: &Bytes,
) -> Result<Response, WireError> {
    let request: CompletionRequest = input::parse(body)?;
    let deployment = resource.deployment(route, request.model.as_deref())?;
    let prompts = prompts(request.prompt.as_ref())?;
    let max_tokens = request.max_tokens.and_then(|n| u64::try_from(n).ok());
    let max_tokens = max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
    let mut all = Prompt::default();
    prompts.iter().for_each(|prompt| all.add(prompt));
    let mut ticket = resource.admit(deployment, route, &all, Some(max_tokens))?;
    validate(&request)?;

    let choices = usize::try_from(request.n.unwrap_or(1)).unwrap_or(1);
    let answers: Vec<answer::Text> = prompts
        .iter()
        .flat_map(|prompt| std::iter::repeat_n(complete(prompt, max_tokens), choices))
        .collect();
    let output = answers
        .iter()
        .fold(0u64, |sum, a| sum.saturating_add(a.tokens));
    let usage = chat::usage(&ticket, output);
    let head = Head {
        id: new_id("cmpl-"),
        created: resource.clock.unix_s(),
        model: deployment.model.clone(),
    };
    if request.stream == Some(true) {
        resource.think(0).await;
        let wanted = request.stream_options.and_then(|o| o.include_usage) == Some(true);
        let events = events(head, answers, wanted.then_some(usage));
        return Ok(pace::stream(events, resource.latency.per_token_ms, ticket));
    }
    resource.think(output).await;
    ticket.used.output = output;
    let choices = answers.iter().enumerate();
    let choices: Vec<Value> = choices
        .map(|(i, a)| choice(i, &a.text, Some(finish(a))))
        .collect();
    let mut response = super::json(&head.body(&choices, Some(&usage)));
    ticket.stamp(response.headers_mut());
    Ok(response)
}

fn validate(request: &CompletionRequest) -> Result<(), WireError> {
    in_range("max_tokens", request.max_tokens, 0..=i64::from(u32::MAX))?;
    in_range("n", request.n, 1..=chat::MAX_CHOICES)?;
    in_range("temperature", request.temperature, 0.0..=2.0)?;
    chat::check_stream_options(request.stream_options.is_some(), request.stream)
}

/// A prompt, or several. Prompts of token numbers are read as their digits.
fn prompts(prompt: Option<&Value>) -> Result<Vec<String>, WireError> {
    let prompts = match prompt {
        None => vec![String::new()],
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(items)) if items.first().is_some_and(Value::is_number) => {
            vec![items.iter().map(|n| format!("{n} ")).collect()]
        }
        Some(Value::Array(items)) if !items.is_empty() && items.len() <= MAX_PROMPTS => {
            let text = |item: &Value| {
                item.as_str()
                    .map_or_else(|| item.to_string(), str::to_owned)
            };
            items.iter().map(text).collect()
        }
        Some(_) => {
            let message = "Invalid 'prompt': expected a string or a list of at most 2048 of them.";
            return Err(WireError::invalid("prompt", message));
        }
    };
    Ok(prompts)
}

fn complete(prompt: &str, max_tokens: u64) -> answer::Text {
    let mut one = Prompt::default();
    one.add(prompt);
    let wishes = Wishes {
        max_tokens: Some(max_tokens),
        ..Wishes::default()
    };
    match answer::answer(&one, &wishes) {
        Answer::Text(text) => text,
        // Only a request with tools gets a call.
        Answer::Call(call) => answer::Text {
            text: call.arguments,
            tokens: call.tokens,
            cut: false,
        },
    }
}

fn finish(text: &answer::Text) -> &'static str {
    if text.cut { "length" } else { "stop" }
}

fn choice(index: usize, text: &str, finish: Option<&str>) -> Value {
    json!({
        "index": index, "text": text, "finish_reason": finish, "logprobs": null,
        "content_filter_results": answer::clean_filter(),
    })
}

struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    fn body(&self, choices: &[Value], usage: Option<&Value>) -> Value {
        let mut body = json!({
            "id": self.id, "object": "text_completion", "created": self.created,
            "model": self.model, "choices": choices,
        });
        if let (Some(usage), Some(body)) = (usage, body.as_object_mut()) {
            body.insert("usage".to_owned(), usage.clone());
        }
        body
    }
}

fn events(
    head: Head,
    answers: Vec<answer::Text>,
    usage: Option<Value>,
) -> impl Iterator<Item = Event> + Send + Unpin + 'static {
    // With include_usage, chunks before the last say so with a null.
    let none_yet = usage.as_ref().map(|_| Value::Null);
    let last = usage.map(|usage| Event::data(&head.body(&[], Some(&usage))));
    let chunks = answers
        .into_iter()
        .enumerate()
        .flat_map(move |(index, answer)| {
            let closing = choice(index, "", Some(finish(&answer)));
            let closing = Event::data(&head.body(&[closing], none_yet.as_ref()));
            let pieces: Vec<Event> = OwnedTokens::of(answer.text)
                .map(|piece| {
                    let chunk = head.body(&[choice(index, &piece, None)], none_yet.as_ref());
                    Event::data(&chunk).with_tokens(1)
                })
                .collect();
            pieces.into_iter().chain(std::iter::once(closing))
        });
    chunks.chain(last).chain(std::iter::once(Event::done()))
}
