//! `realtime`: a session over WebSocket that answers texts with made-up texts, and sound with silence.
//!
//! It speaks the API's events as far as a conversation needs them: `session.update`,
//! `conversation.item.create`, `input_audio_buffer.append` and `.commit`, `response.create`.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{StatusCode, request};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::answer::{self, Answer, Wishes};
use super::errors::WireError;
use super::limits::Deployment;
use super::resource::{Resource, new_id};
use super::route::Route;
use super::tokens::{self, Prompt};
use crate::gateway::realtime::model;
use crate::gateway::websocket::{CLOSE, PING, TEXT, closing, frame};

/// What the answer to a handshake is made of, beside the client's key (RFC 6455, section 1.3).
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Longest frame taken, bytes.
const MAX_FRAME: u64 = 16 * 1024 * 1024;

/// Sound in and out: PCM with 24,000 samples a second, of two bytes.
const BYTES_PER_MS: usize = 48;
/// OpenAI's figures: a token for 100 ms of the user's sound, and for 50 ms of the model's.
const INPUT_MS_PER_TOKEN: usize = 100;
const OUTPUT_MS_PER_TOKEN: usize = 50;

const PONG: u8 = 10;

/// Answers the handshake and starts the session.
pub(super) fn open(
    resource: &Arc<Resource>,
    route: &Route,
    head: &request::Parts,
) -> Result<Response, WireError> {
    let model = model(head.uri.query().unwrap_or_default());
    let deployment = resource.deployment(route, model.as_deref())?;
    // A deployment that is full says so before anything else.
    resource.admit(deployment, route, &Prompt::default(), Some(0))?;
    let key = head.headers.get("sec-websocket-key");
    let (Some(key), Some(client)) = (key, head.extensions.get::<OnUpgrade>()) else {
        return Err(WireError::invalid(
            "upgrade",
            "This URL takes WebSocket only.",
        ));
    };
    let session = Session {
        resource: Arc::clone(resource),
        deployment: Arc::clone(deployment),
        route: route.clone(),
        said: Vec::new(),
        audio_bytes: 0,
        speaks: true,
        turn: 0,
    };
    let client = client.clone();
    tokio::spawn(async move {
        match client.await {
            Ok(client) => session.run(TokioIo::new(client)).await,
            Err(error) => tracing::debug!(%error, "a simulated session did not begin"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    accept(&head.headers, key, response.headers_mut());
    Ok(response)
}

fn accept(asked: &HeaderMap, key: &HeaderValue, headers: &mut HeaderMap) {
    let text = [key.as_bytes(), MAGIC.as_bytes()].concat();
    let accept = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text));
    if let Ok(accept) = HeaderValue::try_from(accept) {
        headers.insert("sec-websocket-accept", accept);
    }
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    const PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
    let offered = asked.get(PROTOCOL).and_then(|value| value.to_str().ok());
    if offered.is_some_and(|offered| offered.split(',').any(|one| one.trim() == "realtime")) {
        headers.insert(PROTOCOL, HeaderValue::from_static("realtime"));
    }
}

type Io = TokioIo<Upgraded>;

/// What a client says, as far as it matters.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    session: Value,
    #[serde(default)]
    item: Value,
    #[serde(default)]
    audio: String,
    #[serde(default)]
    response: Value,
}

struct Session {
    resource: Arc<Resource>,
    deployment: Arc<Deployment>,
    route: Route,
    /// What the user has said since the last response, as text.
    said: Vec<String>,
    /// And as sound.
    audio_bytes: usize,
    /// Whether answers are spoken.
    speaks: bool,
    turn: u32,
}

impl Session {
    async fn run(mut self, mut io: Io) {
        // An error is the client's leaving.
        let _ = self.converse(&mut io).await;
        let _ = io.shutdown().await;
    }

    async fn converse(&mut self, io: &mut Io) -> std::io::Result<()> {
        let session = json!({
            "id": new_id("sess_"), "object": "realtime.session", "type": "realtime",
            "model": self.deployment.model, "output_modalities": ["audio"],
        });
        send(io, "session.created", json!({ "session": session })).await?;
        let mut message = Vec::new();
        loop {
            let (first, payload) = read_frame(io).await?;
            match first & 0x0f {
                CLOSE => {
                    let code = payload
                        .first_chunk()
                        .map_or(1000, |code| u16::from_be_bytes(*code));
                    return io.write_all(&frame(CLOSE, &closing(code, ""), None)).await;
                }
                PING => io.write_all(&frame(PONG, &payload, None)).await?,
                PONG => {}
                _ => {
                    message.extend(payload);
                    if first & 0x80 != 0 {
                        self.take(io, &std::mem::take(&mut message)).await?;
                    }
                }
            }
        }
    }

    async fn take(&mut self, io: &mut Io, message: &[u8]) -> std::io::Result<()> {
        let event: Event = match serde_json::from_slice(message) {
            Ok(event) => event,
            Err(error) => return refuse(io, &format!("This is no event: {error}.")).await,
        };
        match &*event.kind {
            "session.update" => {
                self.listen_to(&event.session);
                send(io, "session.updated", json!({ "session": event.session })).await
            }
            "conversation.item.create" => {
                let parts = event.item.get("content").and_then(Value::as_array);
                let texts = parts
                    .into_iter()
                    .flatten()
                    .filter_map(|part| part.get("text")?.as_str());
                self.said.extend(texts.map(str::to_owned));
                send(io, "conversation.item.added", json!({ "item": event.item })).await
            }
            "input_audio_buffer.append" => match STANDARD.decode(&event.audio) {
                Ok(audio) => {
                    self.audio_bytes += audio.len();
                    Ok(())
                }
                Err(error) => refuse(io, &format!("The audio is no base64: {error}.")).await,
            },
            "input_audio_buffer.commit" => {
                let item = json!({ "item_id": new_id("item_") });
                send(io, "input_audio_buffer.committed", item).await
            }
            "response.create" => {
                self.listen_to(&event.response);
                self.respond(io).await
            }
            "response.cancel" => refuse(io, "Cancellation failed: no active response found.").await,
            other => refuse(io, &format!("Invalid value: '{other}'.")).await,
        }
    }

    fn listen_to(&mut self, wishes: &Value) {
        if let Some(modalities) = wishes.get("output_modalities").and_then(Value::as_array) {
            self.speaks = modalities.iter().any(|modality| modality == "audio");
        }
    }

    async fn respond(&mut self, io: &mut Io) -> std::io::Result<()> {
        self.turn += 1;
        let mut prompt = Prompt::default();
        for text in std::mem::take(&mut self.said) {
            prompt.add(&text);
        }
        let audio =
            std::mem::take(&mut self.audio_bytes).div_ceil(BYTES_PER_MS * INPUT_MS_PER_TOKEN);
        let audio = u64::try_from(audio).unwrap_or(u64::MAX);
        prompt.add_tokens(audio);
        let id = new_id("resp_");
        let response = |status: &str, more: Value| {
            let mut response = json!({ "id": id, "object": "realtime.response", "status": status });
            if let (Some(all), Some(more)) = (response.as_object_mut(), more.as_object()) {
                all.extend(more.clone());
            }
            json!({ "response": response })
        };
        send(
            io,
            "response.created",
            response("in_progress", json!({ "usage": null })),
        )
        .await?;
        let admitted = self
            .resource
            .admit(&self.deployment, &self.route, &prompt, None);
        let Ok(mut ticket) = admitted else {
            let error = json!({ "type": "invalid_request_error", "code": "rate_limit_exceeded" });
            let details =
                json!({ "status_details": { "type": "failed", "error": error }, "usage": null });
            return send(io, "response.done", response("failed", details)).await;
        };
        let wishes = Wishes {
            users_turn: true,
            turn: self.turn,
            ..Wishes::default()
        };
        let text = match answer::answer(&prompt, &wishes) {
            Answer::Text(text) => text.text,
            Answer::Call(call) => call.arguments,
        };
        self.resource.think(0).await;
        let item = new_id("item_");
        let mut spoken = 0;
        for token in tokens::split(&text) {
            let delta = |delta: &str| json!({ "response_id": id, "item_id": item, "output_index": 0, "content_index": 0, "delta": delta });
            let kind = if self.speaks {
                spoken += 1;
                let silence = vec![0; BYTES_PER_MS * OUTPUT_MS_PER_TOKEN];
                let silence = STANDARD.encode(silence);
                send(io, "response.output_audio.delta", delta(&silence)).await?;
                "response.output_audio_transcript.delta"
            } else {
                "response.output_text.delta"
            };
            send(io, kind, delta(token)).await?;
            ticket.used.output += 1;
        }
        let content = if self.speaks {
            json!([{ "type": "output_audio", "transcript": text }])
        } else {
            json!([{ "type": "output_text", "text": text }])
        };
        let (input, output) = (ticket.used.prompt, ticket.used.output + spoken);
        let usage = json!({
            "total_tokens": input + output, "input_tokens": input, "output_tokens": output,
            "input_token_details": {
                "text_tokens": input - audio, "audio_tokens": audio, "image_tokens": 0,
                "cached_tokens": ticket.used.cached,
            },
            "output_token_details": { "text_tokens": output - spoken, "audio_tokens": spoken },
        });
        let message = json!({
            "id": item, "object": "realtime.item", "type": "message", "status": "completed",
            "role": "assistant", "content": content,
        });
        let done = json!({ "status_details": null, "output": [message], "usage": usage });
        send(io, "response.done", response("completed", done)).await
    }
}

async fn refuse(io: &mut Io, message: &str) -> std::io::Result<()> {
    let error = json!({
        "type": "invalid_request_error", "code": null, "message": message, "param": null,
    });
    send(io, "error", json!({ "error": error })).await
}

async fn send(io: &mut Io, kind: &str, mut event: Value) -> std::io::Result<()> {
    if let Some(fields) = event.as_object_mut() {
        fields.insert("type".to_owned(), kind.into());
        fields.insert("event_id".to_owned(), new_id("event_").into());
    }
    io.write_all(&frame(TEXT, event.to_string().as_bytes(), None))
        .await
}

/// The next frame: its first byte, and its payload.
async fn read_frame(io: &mut Io) -> std::io::Result<(u8, Vec<u8>)> {
    let first = io.read_u8().await?;
    let second = io.read_u8().await?;
    let length = match second & 0x7f {
        126 => u64::from(io.read_u16().await?),
        127 => io.read_u64().await?,
        short => u64::from(short),
    };
    if second & 0x80 == 0 || length > MAX_FRAME {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut mask = [0; 4];
    io.read_exact(&mut mask).await?;
    let mut payload = vec![0; usize::try_from(length).unwrap_or_default()];
    io.read_exact(&mut payload).await?;
    let mask = mask.iter().cycle();
    payload
        .iter_mut()
        .zip(mask)
        .for_each(|(byte, mask)| *byte ^= mask);
    Ok((first, payload))
}
