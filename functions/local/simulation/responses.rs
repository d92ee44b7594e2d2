//! `responses`: create, and what is remembered of them: get, delete, cancel, chaining.

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
use super::{json as json_answer, pace, responses_stream};
use crate::gateway::time::Timestamp;

#[derive(Deserialize)]
struct CreateRequest<'a> {
    model: Option<String>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    instructions: Option<String>,
    max_output_tokens: Option<i64>,
    temperature: Option<f64>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    text: Option<Value>,
    previous_response_id: Option<String>,
    metadata: Option<Value>,
    store: Option<bool>,
    stream: Option<bool>,
    background: Option<bool>,
}

/// One item of an input list: a message, a call made earlier or its result.
#[derive(Deserialize)]
struct InputItem<'a> {
    #[serde(rename = "type")]
    kind: Option<String>,
    role: Option<String>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    arguments: Option<String>,
    #[serde(borrow)]
    output: Option<&'a RawValue>,
}

/// A response that the resource remembers.
#[derive(Debug)]
pub(super) struct StoredResponse {
    /// The response as it is when complete.
    body: Value,
    /// Tokens of the conversation up to and with this response.
    context_tokens: u64,
    /// Which turn of its conversation it is; 1 is the first.
    turn: u32,
    /// When a background response is complete; others are from the start.
    background_until: Option<Timestamp>,
}

/// What a later call needs to know of the conversation before it.
#[derive(Clone, Copy, Default)]
struct Before {
    context_tokens: u64,
    turn: u32,
}

/// A response made and not yet sent.
pub(super) struct Made {
    /// The response as it is when complete.
    pub(super) body: Value,
    pub(super) answer: Answer,
    context_tokens: u64,
    turn: u32,
}

impl Made {
    /// Remembers the response, so that it can be fetched and continued.
    pub(super) fn remember(self, resource: &Resource, background_until: Option<Timestamp>) {
        if self.body.get("store") != Some(&Value::Bool(true)) {
            return;
        }
        let id = id_of(&self.body).to_owned();
        let bytes = self.body.to_string().len();
        let Self {
            body,
            context_tokens,
            turn,
            ..
        } = self;
        let stored = StoredResponse {
            body,
            context_tokens,
            turn,
            background_until,
        };
        resource.responses().put(id, bytes, stored);
    }
}

pub(super) async fn create(
    resource: &Arc<Resource>,
    route: &Route,
    body: &Bytes,
) -> Result<Response, WireError> {
    let request: CreateRequest<'_> = input::parse(body)?;
    let deployment = resource.deployment(route, request.model.as_deref())?;
    let before = conversation(resource, request.previous_response_id.as_deref())?;
    let (prompt, users_turn) = read_prompt(&request, before)?;
    let max_tokens = request
        .max_output_tokens
        .and_then(|n| u64::try_from(n).ok());
    let mut ticket = resource.admit(deployment, route, &prompt, max_tokens)?;
    validate(&request)?;

    let turn = before.turn.saturating_add(1);
    let wishes = Wishes {
        tools: &input::tools(request.tools.as_deref().unwrap_or_default()),
        choice: input::tool_choice(request.tool_choice.as_ref()),
        users_turn,
        format: input::response_format(request.text.as_ref().and_then(|t| t.get("format"))),
        max_tokens,
        turn,
    };
    let answer = answer::answer(&prompt, &wishes);
    let output = answer.tokens();
    let body = whole(
        &request,
        &answer,
        &ticket,
        resource.clock.unix_s(),
        &deployment.model,
    );
    let context_tokens = prompt.tokens.saturating_add(output);
    let made = Made {
        body,
        answer,
        context_tokens,
        turn,
    };

    if request.stream == Some(true) {
        resource.think(0).await;
        let events = responses_stream::events(made, Arc::clone(resource));
        return Ok(pace::stream(events, resource.latency.per_token_ms, ticket));
    }
    ticket.used.output = output;
    let shown = if request.background == Some(true) {
        let queued = with_status(&made.body, "queued");
        let ms = resource.latency.per_token_ms.saturating_mul(output);
        let ms = ms.saturating_add(resource.latency.first_token_ms);
        made.remember(resource, Some(resource.clock.now().plus_ms(ms)));
        queued
    } else {
        resource.think(output).await;
        let body = made.body.clone();
        made.remember(resource, None);
        body
    };
    let mut response = json_answer(&shown);
    ticket.stamp(response.headers_mut());
    Ok(response)
}

pub(super) fn get(resource: &Resource, id: &str) -> Result<Response, WireError> {
    let now = resource.clock.now();
    let responses = resource.responses();
    let stored = responses
        .get(id)
        .ok_or_else(|| WireError::no_such("Response", id))?;
    let running = stored.background_until.is_some_and(|done| now < done);
    let status = if running {
        "in_progress"
    } else {
        status_of(&stored.body)
    };
    Ok(json_answer(&with_status(&stored.body, status)))
}

pub(super) fn delete(resource: &Resource, id: &str) -> Result<Response, WireError> {
    let removed = resource.responses().remove(id);
    removed.ok_or_else(|| WireError::no_such("Response", id))?;
    Ok(json_answer(
        &json!({ "id": id, "object": "response", "deleted": true }),
    ))
}

/// Only a background response can be cancelled, and only until it is complete.
pub(super) fn cancel(resource: &Resource, id: &str) -> Result<Response, WireError> {
    let now = resource.clock.now();
    let mut responses = resource.responses();
    let stored = responses
        .get_mut(id)
        .ok_or_else(|| WireError::no_such("Response", id))?;
    let Some(done) = stored.background_until else {
        return Err(WireError::invalid(
            "response_id",
            "Cannot cancel a synchronous response.",
        ));
    };
    if now < done {
        stored.body = with_status(&stored.body, "cancelled");
        stored.background_until = Some(now);
    }
    Ok(json_answer(&stored.body))
}

fn conversation(resource: &Resource, previous: Option<&str>) -> Result<Before, WireError> {
    let Some(id) = previous else {
        return Ok(Before::default());
    };
    let responses = resource.responses();
    let stored = responses.get(id).ok_or_else(|| {
        // 400 and not 404, as users of Azure report it.
        let message = format!("Previous response with id '{id}' not found.");
        let code = Value::from("previous_response_not_found");
        WireError::invalid_coded("previous_response_id", &message, &code)
    })?;
    Ok(Before {
        context_tokens: stored.context_tokens,
        turn: stored.turn,
    })
}

/// The prompt, and whether its last item is the user's.
fn read_prompt(request: &CreateRequest<'_>, before: Before) -> Result<(Prompt, bool), WireError> {
    let mut prompt = Prompt::default();
    prompt.add_tokens(before.context_tokens);
    if let Some(instructions) = &request.instructions {
        prompt.add(instructions);
    }
    for tool in request.tools.iter().flatten() {
        prompt.add_tokens(super::tokens::count(&tool.to_string()));
    }
    let Some(raw) = request.input else {
        return Ok((prompt, true));
    };
    if !raw.get().starts_with('[') {
        input::add_content(&mut prompt, Some(raw), "input")?;
        return Ok((prompt, true));
    }
    let items: Vec<InputItem<'_>> = input::parse(raw.get().as_bytes())?;
    let mut users_turn = true;
    for item in items {
        if let Some(arguments) = &item.arguments {
            prompt.add(arguments);
        }
        input::add_content(&mut prompt, item.output, "input")?;
        input::add_content(&mut prompt, item.content, "input")?;
        let is_message = matches!(item.kind.as_deref(), None | Some("message"));
        users_turn = is_message && item.role.as_deref() == Some("user");
    }
    Ok((prompt, users_turn))
}

fn validate(request: &CreateRequest<'_>) -> Result<(), WireError> {
    if request.input.is_none() {
        let code = Value::from("missing_required_parameter");
        let message = "Missing required parameter: 'input'.";
        return Err(WireError::invalid_coded("input", message, &code));
    }
    // 16 is the least that the real API takes.
    in_range(
        "max_output_tokens",
        request.max_output_tokens,
        16..=i64::from(u32::MAX),
    )?;
    in_range("temperature", request.temperature, 0.0..=2.0)?;
    if request.background == Some(true) && request.store == Some(false) {
        let message = "Background responses must be stored: 'store' cannot be false.";
        return Err(WireError::invalid("store", message));
    }
    if request.background == Some(true) && request.stream == Some(true) {
        let message = "The simulation does not stream background responses.";
        return Err(WireError::invalid("stream", message));
    }
    Ok(())
}

fn whole(
    request: &CreateRequest<'_>,
    answer: &Answer,
    ticket: &Ticket,
    created: u64,
    model: &str,
) -> Value {
    let cut = matches!(answer, Answer::Text(text) if text.cut);
    let (input, output) = (ticket.used.prompt, answer.tokens());
    json!({
        "id": new_id("resp_"),
        "object": "response",
        "created_at": created,
        "status": if cut { "incomplete" } else { "completed" },
        "background": request.background.unwrap_or(false),
        "error": null,
        "incomplete_details": if cut { json!({ "reason": "max_output_tokens" }) } else { Value::Null },
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata.clone().unwrap_or_else(|| json!({})),
        "model": model,
        "output": [output_item(answer)],
        "parallel_tool_calls": true,
        "previous_response_id": request.previous_response_id,
        "reasoning": { "effort": null, "summary": null },
        "store": request.store.unwrap_or(true),
        "temperature": request.temperature.unwrap_or(1.0),
        "text": request.text.clone().unwrap_or_else(|| json!({ "format": { "type": "text" } })),
        "tool_choice": request.tool_choice.clone().unwrap_or_else(|| json!("auto")),
        "tools": request.tools.clone().unwrap_or_default(),
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": input,
            "input_tokens_details": { "cached_tokens": ticket.used.cached },
            "output_tokens": output,
            "output_tokens_details": { "reasoning_tokens": 0 },
            "total_tokens": input.saturating_add(output),
        },
        "user": null,
    })
}

fn output_item(answer: &Answer) -> Value {
    match answer {
        Answer::Text(text) => json!({
            "id": new_id("msg_"), "type": "message", "role": "assistant",
            "status": if text.cut { "incomplete" } else { "completed" },
            "content": [{ "type": "output_text", "text": text.text, "annotations": [] }],
        }),
        Answer::Call(call) => json!({
            "id": new_id("fc_"), "type": "function_call", "status": "completed",
            "call_id": new_id("call_"), "name": call.name, "arguments": call.arguments,
        }),
    }
}

/// The response before it is complete: without output and usage; or as it is, when `status` is its own.
pub(super) fn with_status(body: &Value, status: &str) -> Value {
    let mut shown = body.clone();
    if status_of(body) == status {
        return shown;
    }
    if let Some(fields) = shown.as_object_mut() {
        fields.insert("status".to_owned(), status.into());
        fields.insert("output".to_owned(), json!([]));
        fields.insert("usage".to_owned(), Value::Null);
        fields.insert("incomplete_details".to_owned(), Value::Null);
    }
    shown
}

pub(super) fn status_of(body: &Value) -> &str {
    body.get("status")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn id_of(body: &Value) -> &str {
    body.get("id").and_then(Value::as_str).unwrap_or_default()
}
