//! What the backend says, in Azure's form (headers and fields as recorded from Azure in 2025).

use std::time::Duration;

/// Ready-made answers.
pub(crate) struct Canned {
    /// An answer that is not streamed.
    pub(crate) whole: Vec<u8>,
    /// A stream's head and first chunk.
    pub(crate) stream_start: Vec<u8>,
    /// Further chunks, to be sent in turn. They differ: `LiteLLM` ends a stream that says the
    /// same a hundred times.
    pub(crate) chunks: Vec<Vec<u8>>,
    /// The chunk with the usage, `[DONE]` and the end.
    pub(crate) stream_end: Vec<u8>,
}

/// Stands in each chunk once, and nowhere else: clients count chunks by it. A single byte, so that
/// no frame of the transfer encoding can begin within it.
pub(crate) const CHUNK_MARK: u8 = b'#';

/// What the chunks say.
const WORDS: [&str; 4] = ["#check", "#the", "#suction", "#strainer"];

/// Stands in every whole answer and in every stream: proof that the answer is this backend's.
pub(crate) const USAGE_MARK: &[u8] = br#""completion_tokens":57"#;

const COMMON: &str = "apim-request-id: 8f2cae43-7a6e-4f0e-9d0c-7a2f0c7b6a11\r\n\
    strict-transport-security: max-age=31536000; includeSubDomains; preload\r\n\
    x-content-type-options: nosniff\r\n\
    x-ms-deployment-name: gpt-4o\r\n\
    x-ms-rai-invoked: true\r\n\
    x-ms-region: Sweden Central\r\n\
    x-request-id: c44b65e2-1f0b-4d3c-8a55-93a1f4a0c7de\r\n\
    x-ratelimit-limit-requests: 10000\r\n\
    x-ratelimit-limit-tokens: 1000000\r\n\
    x-ratelimit-remaining-requests: 9999\r\n\
    x-ratelimit-remaining-tokens: 999998\r\n";

const FILTER: &str = r#"{"hate":{"filtered":false,"severity":"safe"},"self_harm":{"filtered":false,"severity":"safe"},"sexual":{"filtered":false,"severity":"safe"},"violence":{"filtered":false,"severity":"safe"}}"#;

const USAGE: &str = r#"{"completion_tokens":57,"completion_tokens_details":{"accepted_prediction_tokens":0,"audio_tokens":0,"reasoning_tokens":0,"rejected_prediction_tokens":0},"prompt_tokens":212,"prompt_tokens_details":{"audio_tokens":0,"cached_tokens":0},"total_tokens":269}"#;

impl Canned {
    pub(crate) fn new() -> Self {
        let text = "Check the suction side first: a clogged strainer or a small leak there lets \
            the pressure fall once the pump is warm. Clean the strainer, tighten the flange and \
            measure again after ten minutes. If it still falls, look at the relief valve, whose \
            spring wears out early in this series.";
        let body = format!(
            r#"{{"choices":[{{"content_filter_results":{FILTER},"finish_reason":"stop","index":0,"logprobs":null,"message":{{"annotations":[],"content":"{text}","refusal":null,"role":"assistant"}}}}],"created":1764020000,"id":"chatcmpl-CfQ3zLw1","model":"gpt-4o-2024-11-20","object":"chat.completion","prompt_filter_results":[{{"prompt_index":0,"content_filter_results":{FILTER}}}],"system_fingerprint":"fp_b705f0c291","usage":{USAGE}}}"#
        );
        let whole = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{COMMON}\r\n{body}",
            body.len()
        );
        let event = |choices: &str, usage: &str| {
            format!(
                "data: {{\"choices\":[{choices}],\"created\":1764020000,\"id\":\"chatcmpl-CfQ3zLw1\",\"model\":\"gpt-4o-2024-11-20\",\"object\":\"chat.completion.chunk\",\"system_fingerprint\":\"fp_b705f0c291\",\"usage\":{usage}}}\n\n"
            )
        };
        let delta = |word: &str| {
            format!(
                r#"{{"content_filter_results":{{}},"delta":{{"content":" {word}"}},"finish_reason":null,"index":0,"logprobs":null}}"#
            )
        };
        let first = in_frame(&event(&delta("#First"), "null"));
        let chunks = WORDS.map(|word| in_frame(&event(&delta(word), "null")).into_bytes());
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n{COMMON}\r\n"
        );
        let end = in_frame(&event("", USAGE)) + &in_frame("data: [DONE]\n\n") + "0\r\n\r\n";
        Self {
            whole: whole.into_bytes(),
            stream_start: (head + &first).into_bytes(),
            chunks: chunks.to_vec(),
            stream_end: end.into_bytes(),
        }
    }
}

/// A chunk of the transfer encoding.
fn in_frame(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A full PTU deployment's answer.
pub(crate) fn throttled(wait: Duration) -> Vec<u8> {
    let body = r#"{"error":{"code":"429","message":"The deployment is at its provisioned throughput. Please retry later."}}"#;
    let ms = wait.as_micros().div_ceil(1000).max(1);
    format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after-ms: {ms}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
