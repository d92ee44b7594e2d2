//! `embeddings`: unit vectors that follow from the words, so that texts with words in common are near.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::errors::WireError;
use super::input::{self, in_range};
use super::resource::Resource;
use super::route::Route;
use super::tokens::Prompt;

/// Inputs that one call may hold (Microsoft Learn, "Generate embeddings").
const MAX_INPUTS: usize = 2048;
/// Tokens that one input may have (the same page).
const MAX_INPUT_TOKENS: u64 = 8192;
/// Coordinates that a word moves: enough that two words seldom meet in all.
const COORDINATES_PER_WORD: usize = 8;

#[derive(Deserialize)]
struct EmbeddingRequest {
    input: Option<Value>,
    model: Option<String>,
    dimensions: Option<i64>,
    encoding_format: Option<String>,
}

pub(super) async fn create(
    resource: &Arc<Resource>,
    route: &Route,
    body: &Bytes,
) -> Result<Response, WireError> {
    let request: EmbeddingRequest = input::parse(body)?;
    let deployment = resource.deployment(route, request.model.as_deref())?;
    let inputs = inputs(request.input.as_ref())?;
    let mut all = Prompt::default();
    for input in &inputs {
        all.add(input);
        if super::tokens::count(input) > MAX_INPUT_TOKENS {
            let message =
                format!("Invalid 'input': maximum context length is {MAX_INPUT_TOKENS} tokens.");
            return Err(WireError::invalid("input", &message));
        }
    }
    let ticket = resource.admit(deployment, route, &all, Some(0))?;
    let longest = dimensions_of(&deployment.model);
    in_range("dimensions", request.dimensions, 1..=longest)?;
    let dimensions = request.dimensions.unwrap_or(longest);
    let dimensions = usize::try_from(dimensions).unwrap_or(1);
    let base64 = match request.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            let message =
                format!("Invalid 'encoding_format': expected float or base64, got {other}.");
            return Err(WireError::invalid("encoding_format", &message));
        }
    };
    resource.think(0).await;
    let vectors = inputs.iter().enumerate().map(|(index, input)| {
        let vector = embed(input, dimensions);
        let embedding = if base64 {
            json!(encode(&vector))
        } else {
            json!(vector)
        };
        json!({ "object": "embedding", "index": index, "embedding": embedding })
    });
    let mut response = super::json(&json!({
        "object": "list",
        "data": vectors.collect::<Vec<_>>(),
        "model": deployment.model,
        "usage": { "prompt_tokens": all.tokens, "total_tokens": all.tokens },
    }));
    ticket.stamp(response.headers_mut());
    Ok(response)
}

/// A text, several, one text as token numbers, or several so.
fn inputs(input: Option<&Value>) -> Result<Vec<String>, WireError> {
    let numbers = |items: &[Value]| -> String { items.iter().map(|n| format!("{n} ")).collect() };
    let one = |item: &Value| match item {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_number) => {
            Some(numbers(items))
        }
        _ => None,
    };
    let all = match input {
        Some(Value::Array(items)) if items.first().is_some_and(|i| !i.is_number()) => {
            items.iter().map(one).collect::<Option<Vec<_>>>()
        }
        Some(input) => one(input).map(|text| vec![text]),
        None => None,
    };
    all.filter(|all| all.len() <= MAX_INPUTS).ok_or_else(|| {
        let message = "Invalid 'input': expected a text that is not empty, or 1 to 2048 of them.";
        WireError::invalid("input", message)
    })
}

/// The length of a model's vectors (Microsoft Learn, "Azure OpenAI models", embeddings).
fn dimensions_of(model: &str) -> i64 {
    if model.starts_with("text-embedding-3-large") {
        3072
    } else {
        1536
    }
}

/// The unit vector of `text`: the sum of its words' directions. The same text gives the same vector.
fn embed(text: &str, dimensions: usize) -> Vec<f32> {
    let mut vector = vec![0.0f32; dimensions];
    for word in text.split_whitespace() {
        let mut hasher = DefaultHasher::new();
        word.to_lowercase().hash(&mut hasher);
        let mut rng = fastrand::Rng::with_seed(hasher.finish());
        for _ in 0..COORDINATES_PER_WORD {
            if let Some(coordinate) = vector.get_mut(rng.usize(0..dimensions)) {
                *coordinate += if rng.bool() { 1.0 } else { -1.0 };
            }
        }
    }
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    } else if let Some(first) = vector.first_mut() {
        // No words, or words that cancel out: a direction is still owed.
        *first = 1.0;
    }
    vector
}

/// Base64 (RFC 4648) of the vector as little-endian 32-bit floats, which SDKs ask for.
fn encode(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    base64(&bytes)
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| chunk.get(i).copied().map_or(0, u32::from);
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (i, shift) in [18u32, 12, 6, 0].into_iter().enumerate() {
            let index = usize::try_from((bits >> shift) & 63).unwrap_or_default();
            let letter = ALPHABET.get(index).copied().map_or('=', char::from);
            text.push(if i <= chunk.len() { letter } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        let of = |s: &str| base64(s.as_bytes());
        assert_eq!(
            [of(""), of("f"), of("fo"), of("foo")],
            ["", "Zg==", "Zm8=", "Zm9v"]
        );
        assert_eq!(of("foobar"), "Zm9vYmFy");
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn vectors_are_units_and_near_when_words_are_shared() {
        let cat = embed("the cat sat on the mat", 1536);
        let near = embed("The cat lay on the mat", 1536);
        let far = embed("quarterly revenue rose sharply", 1536);
        for v in [&cat, &near, &far, &embed("  ", 3)] {
            assert!((dot(v, v) - 1.0).abs() < 1e-4);
        }
        assert!(dot(&cat, &near) > dot(&cat, &far) + 0.3);
        assert_eq!(cat, embed("the cat sat on the mat", 1536));
    }
}
