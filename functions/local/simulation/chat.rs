//! `chat/completions`, and the answer in one piece.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::answer::{self, Answer, Wishes};
use super::errors::WireError;
use super::input::{self, in_range};
use super::limits::Ticket;
use super::resource::{Resource, new_id};
use super::route::Route;
use super::tokens::Prompt;
use super::{chat_stream, json as json_answer};

/// Choices that one call may ask for, as OpenAI has it.
pub(super) const MAX_CHOICES: i64 = 128;

#[derive(Deserialize)]
struct ChatRequest<'a> {
    #[serde(borrow)]
    messages: Option<Vec<Message<'a>>>,
    model: Option<String>,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    n: Option<i64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    response_format: Option<Value>,
}

#[derive(Deserialize)]
struct Message<'a> {
    role: Option<String>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    tool_calls: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct StreamOptions {
    pub(super) include_usage: Option<bool>,
}

/// What an answer of either form is made from.
pub(super) struct Completion {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
    pub(super) choices: Vec<Answer>,
    pub(super) usage: Value,
}

pub(super) async fn create(
    resource: &Arc<Resource>,
    route: &Route,
    body: &Bytes,
) -> Result<Response, WireError> {
    let request: ChatRequest<'_> = input::parse(body)?;
    let deployment = resource.deployment(route, request.model.as_deref())?;
    let prompt = read_prompt(&request)?;
    let max_tokens = request.max_completion_tokens.or(request.max_tokens);
    let max_tokens = max_tokens.and_then(|n| u64::try_from(n).ok());
    let mut ticket = resource.admit(deployment, route, &prompt, max_tokens)?;
    validate(&request)?;

    let answer = read_answer(&request, &prompt, max_tokens);
    let choices = usize::try_from(request.n.unwrap_or(1)).unwrap_or(1);
    let output = answer
        .tokens()
        .saturating_mul(u64::try_from(choices).unwrap_or(1));
    let completion = Completion {
        id: new_id("chatcmpl-"),
        created: resource.clock.unix_s(),
        model: deployment.model.clone(),
        choices: vec![answer; choices],
        usage: usage(&ticket, output),
    };
    if request.stream == Some(true) {
        resource.think(0).await;
        let include_usage = request.stream_options.and_then(|o| o.include_usage) == Some(true);
        let events = chat_stream::events(completion, include_usage);
        return Ok(super::pace::stream(
            events,
            resource.latency.per_token_ms,
            ticket,
        ));
    }
    resource.think(output).await;
    ticket.used.output = output;
    let mut response = json_answer(&whole(&completion));
    ticket.stamp(response.headers_mut());
    Ok(response)
}

fn read_prompt(request: &ChatRequest<'_>) -> Result<Prompt, WireError> {
    let mut prompt = Prompt::default();
    for message in request.messages.iter().flatten() {
        if let Some(calls) = &message.tool_calls {
            prompt.add(&calls.to_string());
        }
        input::add_content(&mut prompt, message.content, "messages")?;
    }
    for tool in request.tools.iter().flatten() {
        prompt.add_tokens(super::tokens::count(&tool.to_string()));
    }
    Ok(prompt)
}

fn read_answer(request: &ChatRequest<'_>, prompt: &Prompt, max_tokens: Option<u64>) -> Answer {
    let messages = request.messages.as_deref().unwrap_or_default();
    let last_role = messages.last().and_then(|m| m.role.as_deref());
    let wishes = Wishes {
        tools: &input::tools(request.tools.as_deref().unwrap_or_default()),
        choice: input::tool_choice(request.tool_choice.as_ref()),
        users_turn: last_role == Some("user"),
        format: input::response_format(request.response_format.as_ref()),
        max_tokens,
        turn: 1,
    };
    answer::answer(prompt, &wishes)
}

fn validate(request: &ChatRequest<'_>) -> Result<(), WireError> {
    let Some(messages) = &request.messages else {
        let code = Value::from("missing_required_parameter");
        let message = "Missing required parameter: 'messages'.";
        return Err(WireError::invalid_coded("messages", message, &code));
    };
    if messages.is_empty() {
        let message = "Invalid 'messages': empty array. Expected an array with minimum length 1.";
        let code = Value::from("empty_array");
        return Err(WireError::invalid_coded("messages", message, &code));
    }
    const ROLES: [&str; 6] = [
        "system",
        "developer",
        "user",
        "assistant",
        "tool",
        "function",
    ];
    for (at, message) in messages.iter().enumerate() {
        if !message
            .role
            .as_deref()
            .is_some_and(|role| ROLES.contains(&role))
        {
            let param = format!("messages[{at}].role");
            let message = format!("Invalid value for '{param}': expected one of {ROLES:?}.");
            return Err(WireError::invalid(&param, &message));
        }
    }
    in_range("max_tokens", request.max_tokens, 1..=i64::from(u32::MAX))?;
    in_range(
        "max_completion_tokens",
        request.max_completion_tokens,
        1..=i64::from(u32::MAX),
    )?;
    in_range("n", request.n, 1..=MAX_CHOICES)?;
    in_range("temperature", request.temperature, 0.0..=2.0)?;
    in_range("top_p", request.top_p, 0.0..=1.0)?;
    check_stream_options(request.stream_options.is_some(), request.stream)
}

/// `stream_options` without a stream is refused by the real API too.
pub(super) fn check_stream_options(given: bool, stream: Option<bool>) -> Result<(), WireError> {
    if given && stream != Some(true) {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return Err(WireError::invalid("stream_options", message));
    }
    Ok(())
}

/// The usage of chat and completions.
pub(super) fn usage(ticket: &Ticket, output: u64) -> Value {
    let prompt = ticket.used.prompt;
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt.saturating_add(output),
        "prompt_tokens_details": { "cached_tokens": ticket.used.cached, "audio_tokens": 0 },
        "completion_tokens_details": {
            "reasoning_tokens": 0, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    })
}

/// Why a choice ended.
pub(super) fn finish_reason(answer: &Answer) -> &'static str {
    match answer {
        Answer::Text(text) if text.cut => "length",
        Answer::Text(_) => "stop",
        Answer::Call(_) => "tool_calls",
    }
}

fn whole(completion: &Completion) -> Value {
    let choices = completion.choices.iter().enumerate();
    json!({
        "id": completion.id,
        "object": "chat.completion",
        "created": completion.created,
        "model": completion.model,
        "system_fingerprint": "fp_simulated",
        "prompt_filter_results": answer::clean_prompt(),
        "choices": choices.map(|(index, answer)| choice(index, answer)).collect::<Vec<_>>(),
        "usage": completion.usage,
    })
}

fn choice(index: usize, answer: &Answer) -> Value {
    let message = match answer {
        Answer::Text(text) => json!({
            "role": "assistant", "content": text.text, "refusal": null, "annotations": [],
        }),
        Answer::Call(call) => json!({
            "role": "assistant", "content": null, "refusal": null, "annotations": [],
            "tool_calls": [{
                "id": new_id("call_"), "type": "function",
                "function": { "name": call.name, "arguments": call.arguments },
            }],
        }),
    };
    json!({
        "index": index,
        "message": message,
        "finish_reason": finish_reason(answer),
        "logprobs": null,
        "content_filter_results": answer::clean_filter(),
    })
}
