//! `audio/transcriptions`, `audio/translations` and `audio/speech`.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;
use serde::Deserialize;
use serde_json::{Value, json};

use super::errors::WireError;
use super::input;
use super::multipart::Form;
use super::pace::{self, Event};
use super::resource::Resource;
use super::route::{Operation, Route};
use super::tokens::{self, OwnedTokens, Prompt};

/// Tokens of a second of sound. An assumption: Azure does not publish it for transcription.
const AUDIO_TOKENS_PER_SECOND: u64 = 10;
/// Bytes of a second of sound that is no WAV: 128 kbit/s.
const COMPRESSED_BYTES_PER_SECOND: u64 = 16_000;

const SAMPLE_RATE: u32 = 24_000;
/// A tenth of a second.
const SAMPLES: u32 = SAMPLE_RATE / 10;

#[derive(Deserialize)]
struct SpeechRequest {
    model: Option<String>,
    input: Option<String>,
    voice: Option<Value>,
}

pub(super) async fn transcribe(
    resource: &Arc<Resource>,
    route: &Route,
    content_type: &str,
    body: &Bytes,
) -> Result<Response, WireError> {
    let form = Form::parse(content_type, body)?;
    let deployment = resource.deployment(route, form.text("model"))?;
    let file = form.part("file").filter(|file| !file.data.is_empty());
    let seconds = file.map_or(0, |file| seconds_of(&file.data));
    let audio_tokens = seconds.saturating_mul(AUDIO_TOKENS_PER_SECOND);
    let mut prompt = Prompt::default();
    prompt.add(form.text("prompt").unwrap_or_default());
    let text_tokens = prompt.tokens;
    prompt.add_tokens(audio_tokens);
    let name = file
        .and_then(|file| file.filename.as_deref())
        .unwrap_or("a file");
    let task = match route.operation {
        Operation::Translation => "translation",
        _ => "transcription",
    };
    let text = format!("This is a simulated {task} of {name}.");
    let output = tokens::count(&text);
    let mut ticket = resource.admit(deployment, route, &prompt, Some(output))?;
    if file.is_none() {
        return Err(WireError::invalid(
            "file",
            "Missing required parameter: 'file'.",
        ));
    }

    // Whisper is billed by time, its successors by token.
    let by_time = deployment.model.starts_with("whisper");
    let usage = if by_time {
        json!({ "type": "duration", "seconds": seconds })
    } else {
        json!({
            "type": "tokens",
            "input_tokens": prompt.tokens,
            "input_token_details": { "text_tokens": text_tokens, "audio_tokens": audio_tokens },
            "output_tokens": output,
            "total_tokens": prompt.tokens.saturating_add(output),
        })
    };
    // Whisper does not stream; the real API ignores the wish.
    if form.text("stream") == Some("true") && !by_time {
        resource.think(0).await;
        let per_token_ms = resource.latency.per_token_ms;
        return Ok(pace::stream(events(text, &usage), per_token_ms, ticket));
    }
    let answer = whole(form.text("response_format"), &text, task, seconds, &usage)?;
    resource.think(output).await;
    ticket.used.output = output;
    let mut response = answer;
    ticket.stamp(response.headers_mut());
    Ok(response)
}

pub(super) async fn speak(
    resource: &Arc<Resource>,
    route: &Route,
    body: &Bytes,
) -> Result<Response, WireError> {
    let request: SpeechRequest = input::parse(body)?;
    let deployment = resource.deployment(route, request.model.as_deref())?;
    let mut prompt = Prompt::default();
    prompt.add(request.input.as_deref().unwrap_or_default());
    let ticket = resource.admit(deployment, route, &prompt, Some(0))?;
    if request.input.is_none_or(|text| text.is_empty()) || request.voice.is_none() {
        let message = "Missing required parameter: 'input' and 'voice' are required.";
        return Err(WireError::invalid("input", message));
    }
    resource.think(0).await;
    let mut response = ([(header::CONTENT_TYPE, "audio/wav")], silence()).into_response();
    ticket.stamp(response.headers_mut());
    Ok(response)
}

fn whole(
    format: Option<&str>,
    text: &str,
    task: &str,
    seconds: u64,
    usage: &Value,
) -> Result<Response, WireError> {
    let plain = |text: String| {
        ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
    };
    let time = |mark: char| {
        let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        format!("00:00:00{mark}000 --> {h:02}:{m:02}:{s:02}{mark}000")
    };
    match format.unwrap_or("json") {
        "json" => Ok(super::json(&json!({ "text": text, "usage": usage }))),
        "text" => Ok(plain(format!("{text}\n"))),
        "srt" => Ok(plain(format!("1\n{}\n{text}\n\n", time(',')))),
        "vtt" => Ok(plain(format!("WEBVTT\n\n{}\n{text}\n\n", time('.')))),
        "verbose_json" => Ok(super::json(&json!({
            "task": if task == "translation" { "translate" } else { "transcribe" },
            "language": "english", "duration": seconds, "text": text, "usage": usage,
            "segments": [{
                "id": 0, "seek": 0, "start": 0.0, "end": seconds, "text": text, "tokens": [],
                "temperature": 0.0, "avg_logprob": -0.1, "compression_ratio": 1.0,
                "no_speech_prob": 0.01,
            }],
        }))),
        other => {
            let message = format!("Invalid value for 'response_format': '{other}'.");
            Err(WireError::invalid("response_format", &message))
        }
    }
}

fn events(text: String, usage: &Value) -> impl Iterator<Item = Event> + Send + Unpin + 'static {
    let done = json!({ "type": "transcript.text.done", "text": text, "usage": usage });
    let deltas = OwnedTokens::of(text).map(|piece| {
        let delta = json!({ "type": "transcript.text.delta", "delta": piece });
        Event::named("transcript.text.delta", &delta).with_tokens(1)
    });
    deltas.chain(std::iter::once(Event::named("transcript.text.done", &done)))
}

/// The length of a sound in whole seconds, rounded up: by a WAV's byte rate, else by its size.
fn seconds_of(sound: &[u8]) -> u64 {
    let size = u64::try_from(sound.len()).unwrap_or(u64::MAX);
    let byte_rate = sound.get(28..32).filter(|_| sound.starts_with(b"RIFF"));
    let byte_rate = byte_rate.and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let byte_rate = byte_rate.map(u32::from_le_bytes).filter(|rate| *rate > 0);
    size.div_ceil(byte_rate.map_or(COMPRESSED_BYTES_PER_SECOND, u64::from))
}

/// A short WAV of silence: RIFF, mono, 16 bit.
fn silence() -> Vec<u8> {
    let data_len = SAMPLES * 2;
    let mut wav = Vec::new();
    wav.extend(b"RIFF");
    wav.extend((36 + data_len).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16u32.to_le_bytes());
    wav.extend(1u16.to_le_bytes());
    wav.extend(1u16.to_le_bytes());
    wav.extend(SAMPLE_RATE.to_le_bytes());
    wav.extend((SAMPLE_RATE * 2).to_le_bytes());
    wav.extend(2u16.to_le_bytes());
    wav.extend(16u16.to_le_bytes());
    wav.extend(b"data");
    wav.extend(data_len.to_le_bytes());
    wav.extend(std::iter::repeat_n(
        0u8,
        usize::try_from(data_len).unwrap_or_default(),
    ));
    wav
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wav_is_as_long_as_its_byte_rate_says() {
        let mut wav = silence();
        assert_eq!(seconds_of(&wav), 1);
        wav.extend(std::iter::repeat_n(0, 48_000 * 3));
        assert_eq!(seconds_of(&wav), 4);
        assert_eq!(seconds_of(&[7; 16_001]), 2);
        assert_eq!(seconds_of(b"RIFF"), 1);
        wav[28..32].fill(0);
        let without_rate = wav.len().div_ceil(16_000);
        assert_eq!(seconds_of(&wav), u64::try_from(without_rate).unwrap());
    }
}
