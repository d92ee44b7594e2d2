//! `images/generations` and `images/edits`: one pixel per picture, and gpt-image's usage.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::errors::WireError;
use super::input::{self, in_range};
use super::multipart::Form;
use super::pace::{self, Event};
use super::resource::Resource;
use super::route::Route;
use super::tokens::Prompt;

/// A PNG of one pixel, in base64.
const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mMwTpsJAAICATNoejH4AAAA\
    AElFTkSuQmCC";

/// Tokens that an image to edit counts as. An assumption: real ones depend on its size.
const INPUT_IMAGE_TOKENS: u64 = 323;

#[derive(Deserialize)]
struct GenerationRequest {
    model: Option<String>,
    prompt: Option<String>,
    n: Option<i64>,
    size: Option<String>,
    quality: Option<String>,
    stream: Option<bool>,
}

/// What generations and edits have in common.
struct Wanted {
    model: Option<String>,
    prompt: Option<String>,
    input_images: u64,
    n: Option<i64>,
    size: String,
    quality: String,
    stream: bool,
    /// How the final event of a stream is called.
    completed: &'static str,
}

pub(super) async fn generate(
    resource: &Arc<Resource>,
    route: &Route,
    body: &Bytes,
) -> Result<Response, WireError> {
    let request: GenerationRequest = input::parse(body)?;
    let wanted = Wanted {
        model: request.model,
        prompt: request.prompt,
        input_images: 0,
        n: request.n,
        size: request.size.unwrap_or_default(),
        quality: request.quality.unwrap_or_default(),
        stream: request.stream == Some(true),
        completed: "image_generation.completed",
    };
    paint(resource, route, wanted).await
}

pub(super) async fn edit(
    resource: &Arc<Resource>,
    route: &Route,
    content_type: &str,
    body: &Bytes,
) -> Result<Response, WireError> {
    let form = Form::parse(content_type, body)?;
    let text = |name: &str| form.text(name).map(str::to_owned);
    let input_images = u64::try_from(form.count("image")).unwrap_or_default();
    if input_images == 0 {
        return Err(WireError::invalid(
            "image",
            "Missing required parameter: 'image'.",
        ));
    }
    let wanted = Wanted {
        model: text("model"),
        prompt: text("prompt"),
        input_images,
        n: form.text("n").map(|n| n.parse().unwrap_or(-1)),
        size: text("size").unwrap_or_default(),
        quality: text("quality").unwrap_or_default(),
        stream: form.text("stream") == Some("true"),
        completed: "image_edit.completed",
    };
    paint(resource, route, wanted).await
}

async fn paint(
    resource: &Arc<Resource>,
    route: &Route,
    wanted: Wanted,
) -> Result<Response, WireError> {
    let deployment = resource.deployment(route, wanted.model.as_deref())?;
    let mut prompt = Prompt::default();
    prompt.add(wanted.prompt.as_deref().unwrap_or_default());
    let text_tokens = prompt.tokens;
    let image_tokens = wanted.input_images.saturating_mul(INPUT_IMAGE_TOKENS);
    prompt.add_tokens(image_tokens);
    let n = wanted.n.and_then(|n| u64::try_from(n).ok()).unwrap_or(1);
    let output = output_tokens(&wanted.quality, &wanted.size).saturating_mul(n);
    let mut ticket = resource.admit(deployment, route, &prompt, Some(output))?;
    if text_tokens == 0 {
        return Err(WireError::invalid(
            "prompt",
            "Missing required parameter: 'prompt'.",
        ));
    }
    in_range("n", wanted.n, 1..=10)?;

    resource.think(0).await;
    let usage = json!({
        "input_tokens": prompt.tokens,
        "input_tokens_details": { "text_tokens": text_tokens, "image_tokens": image_tokens },
        "output_tokens": output,
        "total_tokens": prompt.tokens.saturating_add(output),
    });
    let created = resource.clock.unix_s();
    let mut answer = json!({
        "background": "opaque",
        "output_format": "png",
        "quality": known(&wanted.quality, "medium"),
        "size": known(&wanted.size, "1024x1024"),
        "usage": usage,
    });
    let Some(fields) = answer.as_object_mut() else {
        return Err(WireError::not_found());
    };
    if wanted.stream {
        fields.insert("type".to_owned(), wanted.completed.into());
        fields.insert("created_at".to_owned(), created.into());
        fields.insert("b64_json".to_owned(), PIXEL.into());
        let event = Event::named(wanted.completed, &answer).with_tokens(output);
        return Ok(pace::stream(std::iter::once(event), 0, ticket));
    }
    ticket.used.output = output;
    let images = (0..n)
        .map(|_| json!({ "b64_json": PIXEL }))
        .collect::<Vec<Value>>();
    fields.insert("created".to_owned(), created.into());
    fields.insert("data".to_owned(), images.into());
    let mut response = super::json(&answer);
    ticket.stamp(response.headers_mut());
    Ok(response)
}

fn known<'a>(given: &'a str, default: &'a str) -> &'a str {
    if given.is_empty() || given == "auto" {
        default
    } else {
        given
    }
}

/// Output tokens of one picture, as OpenAI's image generation guide lists them for gpt-image-1.
fn output_tokens(quality: &str, size: &str) -> u64 {
    let (square, tall, wide) = match quality {
        "low" => (272, 408, 400),
        "high" => (4160, 6240, 6208),
        _ => (1056, 1584, 1568),
    };
    match size {
        "1024x1536" => tall,
        "1536x1024" => wide,
        _ => square,
    }
}
