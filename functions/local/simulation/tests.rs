//! The resource as a client sees it, over a socket.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};

use super::*;

/// A client of one simulated resource.
struct Azure {
    url: String,
    client: Client,
}

impl Azure {
    async fn post(&self, path: &str, body: &Value) -> Response {
        self.client
            .post(self.at(path))
            .json(body)
            .send()
            .await
            .unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.client.get(self.at(path)).send().await.unwrap()
    }

    fn at(&self, path: &str) -> String {
        format!("{}/openai/{path}", self.url)
    }
}

const CHAT: &str = "deployments/gpt/chat/completions?api-version=2024-10-21";

async fn start(backend: SimulatedBackend) -> Azure {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve(listener, router(backend)));
    Azure {
        url,
        client: Client::new(),
    }
}

fn backend(limit: Limit) -> SimulatedBackend {
    let deployment = |name: &str, model: &str| SimulatedDeployment {
        name: name.to_owned(),
        model: model.to_owned(),
        limit,
    };
    SimulatedBackend {
        name: "contoso".to_owned(),
        region: "swedencentral".to_owned(),
        key: None,
        deployments: vec![
            deployment("gpt", "gpt-4o"),
            deployment("embed", "text-embedding-3-small"),
            deployment("image", "gpt-image-1"),
            deployment("whisper", "whisper-1"),
            deployment("transcribe", "gpt-4o-transcribe"),
            deployment("tts", "tts-1"),
        ],
        latency: Latency::default(),
    }
}

fn roomy() -> SimulatedBackend {
    backend(Limit::Payg {
        tokens_per_minute: 10_000_000,
        requests_per_minute: 60_000,
    })
}

fn say(text: &str) -> Value {
    json!({ "messages": [{ "role": "user", "content": text }] })
}

fn with(mut body: Value, more: Value) -> Value {
    let (Some(body_fields), Value::Object(more)) = (body.as_object_mut(), more) else {
        panic!("two objects");
    };
    body_fields.extend(more);
    body
}

async fn json_of(response: Response) -> Value {
    assert_eq!(
        response.status(),
        StatusCode::OK,
        "{}",
        response.text().await.unwrap()
    );
    response.json().await.unwrap()
}

async fn error_of(response: Response, status: u16) -> Value {
    assert_eq!(response.status(), status);
    response.json::<Value>().await.unwrap()["error"].take()
}

/// The `data:` lines of a stream, parsed; `[DONE]` is the string.
async fn events_of(response: Response) -> Vec<Value> {
    assert_eq!(response.status(), 200);
    assert!(header(&response, "content-type").starts_with("text/event-stream"));
    let text = response.text().await.unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
    lines
        .map(|l| serde_json::from_str(l).unwrap_or_else(|_| l.into()))
        .collect()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response
        .headers()
        .get(name)
        .map_or("", |v| v.to_str().unwrap())
}

#[tokio::test]
async fn chat_answers_in_both_url_forms_with_azures_headers() {
    let azure = start(roomy()).await;
    let classic = azure.post(CHAT, &say("Hello")).await;
    assert_eq!(header(&classic, "x-ms-region"), "swedencentral");
    assert_eq!(header(&classic, "x-ms-deployment-name"), "gpt");
    assert_eq!(header(&classic, "apim-request-id").len(), 36);
    assert_eq!(header(&classic, "x-ratelimit-limit-tokens"), "10000000");
    let classic = json_of(classic).await;
    let body = with(say("Hello"), json!({ "model": "gpt" }));
    let v1 = json_of(azure.post("v1/chat/completions", &body).await).await;
    assert_eq!(classic["choices"], v1["choices"]);
    assert_eq!(classic["model"], "gpt-4o");
    let usage = &classic["usage"];
    assert_eq!(usage["prompt_tokens"], 1);
    let total =
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], total);
}

#[tokio::test]
async fn a_chat_stream_says_what_the_whole_answer_says() {
    let azure = start(roomy()).await;
    let whole = json_of(azure.post(CHAT, &say("simulate-tokens:12")).await).await;
    let wish = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let events = events_of(
        azure
            .post(CHAT, &with(say("simulate-tokens:12"), wish))
            .await,
    )
    .await;
    assert_eq!(events[0]["choices"], json!([]));
    assert!(events[0]["prompt_filter_results"].is_array());
    assert_eq!(events.last().unwrap(), "[DONE]");
    let usage = &events[events.len() - 2];
    assert_eq!(
        (&usage["choices"], &usage["usage"]),
        (&json!([]), &whole["usage"])
    );
    let earlier = &events[..events.len() - 2];
    assert!(
        earlier
            .iter()
            .all(|e| e.as_object().unwrap()["usage"].is_null())
    );
    let text: String = earlier
        .iter()
        .filter_map(|e| e["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, whole["choices"][0]["message"]["content"]);
    assert_eq!(
        earlier.last().unwrap()["choices"][0]["finish_reason"],
        "stop"
    );
}

#[tokio::test]
async fn a_stream_without_include_usage_has_no_usage_at_all() {
    let azure = start(roomy()).await;
    let body = with(say("Hello"), json!({ "stream": true }));
    for (path, body) in [
        (CHAT, body),
        (
            "deployments/gpt/completions?api-version=2024-10-21",
            json!({ "prompt": "Hi", "stream": true }),
        ),
    ] {
        let events = events_of(azure.post(path, &body).await).await;
        assert!(events.len() > 3);
        assert!(events.iter().all(|e| e.get("usage").is_none()));
    }
}

#[tokio::test]
async fn completions_of_several_prompts_are_streamed_one_after_the_other() {
    let azure = start(roomy()).await;
    let body = json!({
        "model": "gpt", "prompt": ["one", "simulate-tokens:9"], "max_tokens": 4, "stream": true,
        "stream_options": { "include_usage": true },
    });
    let events = events_of(azure.post("v1/completions", &body).await).await;
    let usage = &events[events.len() - 2]["usage"];
    assert_eq!(
        (&usage["prompt_tokens"], &usage["completion_tokens"]),
        (&json!(4), &json!(8))
    );
    let texts = |index: u64| -> String {
        let choices = events
            .iter()
            .map(|e| &e["choices"][0])
            .filter(|c| c["index"] == index);
        choices.filter_map(|c| c["text"].as_str()).collect()
    };
    assert_eq!(
        (texts(0).as_str(), texts(1).as_str()),
        ("This is a simula", "This answer has as")
    );
}

#[tokio::test]
async fn a_tool_is_called_with_arguments_by_its_schema() {
    let azure = start(roomy()).await;
    let parameters = json!({
        "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"],
    });
    let function = json!({ "name": "get_weather", "parameters": parameters });
    let tools = json!({ "tools": [{ "type": "function", "function": function }] });
    let body = with(say("What is the weather in Umeå?"), tools);
    let whole = json_of(azure.post(CHAT, &body).await).await;
    let choice = &whole["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    let call = &choice["message"]["tool_calls"][0]["function"];
    assert_eq!(call["arguments"], r#"{"city":"sample"}"#);
    let events = events_of(
        azure
            .post(CHAT, &with(body, json!({ "stream": true })))
            .await,
    )
    .await;
    let calls = events
        .iter()
        .map(|e| &e["choices"][0]["delta"]["tool_calls"][0]["function"]);
    let arguments: String = calls.filter_map(|f| f["arguments"].as_str()).collect();
    assert_eq!(arguments, r#"{"city":"sample"}"#);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_in_azures_form() {
    let azure = start(SimulatedBackend {
        key: Some("secret".to_owned()),
        ..roomy()
    })
    .await;
    let denied = azure.post(CHAT, &say("Hello")).await;
    assert_eq!(error_of(denied, 401).await["code"], "401");

    let post = |path: &str, body: String| {
        azure
            .client
            .post(azure.at(path))
            .header("api-key", "secret")
            .body(body)
            .send()
    };
    let gone = post(
        "deployments/none/chat/completions?api-version=1",
        say("x").to_string(),
    );
    assert_eq!(
        error_of(gone.await.unwrap(), 404).await["code"],
        "DeploymentNotFound"
    );
    let path = post("deployments/gpt/chat/completions", say("x").to_string());
    assert_eq!(error_of(path.await.unwrap(), 404).await["code"], "404");
    let filtered = post(
        CHAT,
        say(&format!("please {CONTENT_FILTER_PHRASE} now")).to_string(),
    );
    assert_eq!(
        error_of(filtered.await.unwrap(), 400).await["code"],
        "content_filter"
    );
    for (body, param) in [
        (r#"{"messages": [}"#.to_owned(), Value::Null),
        (r#"{"messages": "hello"}"#.to_owned(), Value::Null),
        (r#"{"messages": []}"#.to_owned(), json!("messages")),
        (
            with(say("x"), json!({ "temperature": 3 })).to_string(),
            json!("temperature"),
        ),
        (
            with(say("x"), json!({ "max_tokens": 0 })).to_string(),
            json!("max_tokens"),
        ),
        (
            with(say("x"), json!({ "stream_options": {} })).to_string(),
            json!("stream_options"),
        ),
    ] {
        let error = error_of(post(CHAT, body.clone()).await.unwrap(), 400).await;
        assert_eq!(error["type"], "invalid_request_error");
        assert_eq!(error["param"], param, "{body}");
    }
    let bearer = azure
        .client
        .get(azure.at("v1/models"))
        .bearer_auth("secret")
        .send()
        .await;
    assert_eq!(bearer.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_full_ptu_says_how_long_to_wait_and_then_admits() {
    // 15 PTUs of gpt-4o hold 37,500 tokens; an output token counts as 4.
    let azure = start(backend(Limit::Ptu { ptus: 15 })).await;
    let first = azure
        .post(CHAT, &with(say("simulate-tokens:9000"), json!({})))
        .await;
    // 9,000 output tokens and 4 of the prompt, after the correction of the estimate.
    assert_eq!(header(&first, "x-ratelimit-limit-tokens"), "");
    json_of(first).await;
    let second = azure
        .post(CHAT, &with(say("simulate-tokens:2000"), json!({})))
        .await;
    assert_eq!(
        header(&second, "azure-openai-deployment-utilization"),
        "101.3%"
    );
    json_of(second).await;
    let full = azure.post(CHAT, &say("Hello")).await;
    assert_eq!(full.status(), 429);
    let utilization = header(&full, "azure-openai-deployment-utilization");
    let wait: u64 = header(&full, "retry-after-ms").parse().unwrap();
    assert!(
        utilization.ends_with('%') && utilization > "117",
        "{utilization}"
    );
    assert_eq!(
        header(&full, "retry-after"),
        wait.div_ceil(1000).to_string()
    );
    tokio::time::advance(Duration::from_millis(wait)).await;
    assert_eq!(azure.post(CHAT, &say("Hello")).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_full_payg_deployment_says_when_its_minute_ends() {
    let limit = Limit::Payg {
        tokens_per_minute: 100,
        requests_per_minute: 600,
    };
    let azure = start(backend(limit)).await;
    let body = with(say("Hello"), json!({ "max_tokens": 99 }));
    let first = azure.post(CHAT, &body).await;
    assert_eq!(header(&first, "x-ratelimit-remaining-tokens"), "0");
    assert_eq!(header(&first, "x-ratelimit-remaining-requests"), "599");
    tokio::time::advance(Duration::from_millis(20_500)).await;
    let full = azure.post(CHAT, &body).await;
    assert_eq!(header(&full, "retry-after"), "40");
    let message = error_of(full, 429).await["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(message.contains("ChatCompletions_Create") && message.contains("token rate limit"));
    assert!(
        message.contains("Please retry after 40 seconds."),
        "{message}"
    );
    tokio::time::advance(Duration::from_secs(40)).await;
    assert_eq!(azure.post(CHAT, &body).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_the_client_leaves_is_billed_as_far_as_it_came() {
    let latency = Latency {
        first_token_ms: 50,
        per_token_ms: 100,
    };
    let azure = start(SimulatedBackend {
        latency,
        ..backend(Limit::Ptu { ptus: 15 })
    })
    .await;
    let body = with(
        say("simulate-tokens:9000"),
        json!({ "stream": true, "max_tokens": 9000 }),
    );
    let mut stream = azure.post(CHAT, &body).await;
    assert_eq!(
        header(&stream, "azure-openai-deployment-utilization"),
        "95.9%"
    );
    while let Some(chunk) = stream.chunk().await.unwrap() {
        if String::from_utf8_lossy(&chunk).contains("has") {
            break;
        }
    }
    drop(stream);
    // The server sees the closed connection at one of its next writes. The clock is the test's, the
    // socket is the system's: give it real time too.
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(2));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let next = azure
        .post(CHAT, &with(say("Hello"), json!({ "max_tokens": 10 })))
        .await;
    let utilization = header(&next, "azure-openai-deployment-utilization");
    assert!(
        utilization.len() == 4 && utilization < "2.0%",
        "{utilization}"
    );
}

#[tokio::test]
async fn a_prompt_with_a_long_prefix_seen_before_is_cached() {
    let azure = start(roomy()).await;
    let long = "word ".repeat(1200);
    let first = json_of(azure.post(CHAT, &say(&format!("{long} one"))).await).await;
    let second = json_of(azure.post(CHAT, &say(&format!("{long} two"))).await).await;
    let cached = |answer: &Value| answer["usage"]["prompt_tokens_details"]["cached_tokens"].clone();
    assert_eq!((cached(&first), cached(&second)), (json!(0), json!(1024)));
}

#[tokio::test]
async fn responses_are_chained_fetched_and_deleted() {
    let azure = start(roomy()).await;
    let ask = |previous: Value| json!({ "model": "gpt", "input": "Hello there", "previous_response_id": previous });
    let first = json_of(azure.post("v1/responses", &ask(Value::Null)).await).await;
    let classic = "responses?api-version=2025-04-01-preview";
    let second = json_of(azure.post(classic, &ask(first["id"].clone())).await).await;
    let text = second["output"][0]["content"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("This is turn 2"), "{text}");
    let before = first["usage"]["total_tokens"].as_u64().unwrap();
    assert_eq!(second["usage"]["input_tokens"], before + 2);

    let path = format!("v1/responses/{}", first["id"].as_str().unwrap());
    assert_eq!(json_of(azure.get(&path).await).await, first);
    let cancel = azure.post(&format!("{path}/cancel"), &json!({})).await;
    assert_eq!(error_of(cancel, 400).await["type"], "invalid_request_error");
    let deleted = azure.client.delete(azure.at(&path)).send().await.unwrap();
    assert_eq!(json_of(deleted).await["deleted"], true);
    assert_eq!(azure.get(&path).await.status(), 404);
    let error = error_of(
        azure.post("v1/responses", &ask(first["id"].clone())).await,
        400,
    )
    .await;
    assert_eq!(error["code"], "previous_response_not_found");
    let unkept = with(ask(Value::Null), json!({ "store": false }));
    let unkept = json_of(azure.post("v1/responses", &unkept).await).await;
    let path = format!("v1/responses/{}", unkept["id"].as_str().unwrap());
    assert_eq!(azure.get(&path).await.status(), 404);
}

#[tokio::test]
async fn a_streamed_response_has_the_real_sequence_and_can_be_continued() {
    let azure = start(roomy()).await;
    let body = json!({ "model": "gpt", "input": "simulate-tokens:3", "stream": true });
    let events = events_of(azure.post("v1/responses", &body).await).await;
    let kinds: Vec<&str> = events
        .iter()
        .map(|e| e["type"].as_str().unwrap().trim_start_matches("response."))
        .collect();
    let expected = [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ];
    assert_eq!(kinds, expected);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let done = &events.last().unwrap()["response"];
    assert_eq!(done["usage"]["output_tokens"], 3);
    assert_eq!(events[0]["response"]["usage"], Value::Null);
    let path = format!("v1/responses/{}", done["id"].as_str().unwrap());
    assert_eq!(json_of(azure.get(&path).await).await, *done);
}

#[tokio::test]
async fn a_response_that_calls_a_tool_or_is_cut_says_so_in_its_events() {
    let azure = start(roomy()).await;
    let tool = json!({ "type": "function", "name": "look_up", "parameters": {} });
    let body = json!({
        "model": "gpt", "input": [{ "role": "user", "content": "Hi" }], "stream": true,
        "tools": [tool], "tool_choice": { "type": "function", "name": "look_up" },
    });
    let events = events_of(azure.post("v1/responses", &body).await).await;
    let last = events.last().unwrap();
    assert_eq!(last["response"]["output"][0]["arguments"], "{}");
    let done = "response.function_call_arguments.done";
    assert!(events.iter().any(|e| e["type"] == done));

    let input = "simulate-tokens:50";
    let body = json!({ "model": "gpt", "input": input, "stream": true, "max_output_tokens": 20 });
    let events = events_of(azure.post("v1/responses", &body).await).await;
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.incomplete");
    assert_eq!(
        last["response"]["incomplete_details"]["reason"],
        "max_output_tokens"
    );
}

#[tokio::test(start_paused = true)]
async fn a_background_response_can_be_cancelled_until_it_is_done() {
    let latency = Latency {
        first_token_ms: 1_000,
        per_token_ms: 0,
    };
    let azure = start(SimulatedBackend { latency, ..roomy() }).await;
    let body = json!({ "model": "gpt", "input": "Hi", "background": true });
    let made = json_of(azure.post("v1/responses", &body).await).await;
    assert_eq!(made["status"], "queued");
    let path = format!("v1/responses/{}", made["id"].as_str().unwrap());
    let cancelled = json_of(azure.post(&format!("{path}/cancel"), &json!({})).await).await;
    assert_eq!(cancelled["status"], "cancelled");
    let made = json_of(azure.post("v1/responses", &body).await).await;
    let path = format!("v1/responses/{}", made["id"].as_str().unwrap());
    assert_eq!(
        json_of(azure.get(&path).await).await["status"],
        "in_progress"
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(json_of(azure.get(&path).await).await["status"], "completed");
}

#[tokio::test]
async fn embeddings_come_as_floats_or_base64_in_the_length_asked_for() {
    let azure = start(roomy()).await;
    let body = json!({ "model": "embed", "input": ["a cat", "a dog"], "dimensions": 8 });
    let floats = json_of(azure.post("v1/embeddings", &body).await).await;
    assert_eq!(floats["data"][1]["embedding"].as_array().unwrap().len(), 8);
    assert_eq!(
        floats["usage"],
        json!({ "prompt_tokens": 4, "total_tokens": 4 })
    );
    let body = with(body, json!({ "encoding_format": "base64" }));
    let base64 = json_of(azure.post("v1/embeddings", &body).await).await;
    assert_eq!(base64["data"][0]["embedding"].as_str().unwrap().len(), 44);
    for wrong in [
        json!({ "dimensions": 0 }),
        json!({ "input": "" }),
        json!({ "input": [] }),
        json!({ "encoding_format": "hex" }),
    ] {
        let answer = azure
            .post("v1/embeddings", &with(body.clone(), wrong))
            .await;
        assert_eq!(answer.status(), 400);
    }
}

#[tokio::test]
async fn images_have_gpt_images_usage_and_a_real_png() {
    let azure = start(roomy()).await;
    let body = json!({ "model": "image", "prompt": "a red fox", "n": 2, "quality": "low" });
    let made = json_of(azure.post("v1/images/generations", &body).await).await;
    assert_eq!(made["data"].as_array().unwrap().len(), 2);
    assert!(
        made["data"][0]["b64_json"]
            .as_str()
            .unwrap()
            .starts_with("iVBORw0KGgo")
    );
    assert_eq!(made["usage"]["input_tokens"], 3);
    assert_eq!(made["usage"]["output_tokens"], 544);
    let form = reqwest::multipart::Form::new()
        .text("model", "image")
        .text("prompt", "make it blue")
        .part(
            "image[]",
            reqwest::multipart::Part::bytes(vec![1, 2, 3]).file_name("a.png"),
        );
    let edited = azure
        .client
        .post(azure.at("v1/images/edits"))
        .multipart(form)
        .send()
        .await;
    let edited = json_of(edited.unwrap()).await;
    assert_eq!(edited["usage"]["input_tokens_details"]["image_tokens"], 323);
}

#[tokio::test]
async fn sound_becomes_text_in_every_format_and_text_becomes_a_wav() {
    let azure = start(roomy()).await;
    let upload = async |model: &'static str, format: &'static str| {
        let sound = reqwest::multipart::Part::bytes(vec![0; 40_000]).file_name("talk.mp3");
        let form = reqwest::multipart::Form::new()
            .text("model", model)
            .text("response_format", format)
            .part("file", sound);
        let url = azure.at("v1/audio/transcriptions");
        azure.client.post(url).multipart(form).send().await.unwrap()
    };
    let text = "This is a simulated transcription of talk.mp3.";
    let json_form = json_of(upload("whisper", "json").await).await;
    let duration = json!({ "type": "duration", "seconds": 3 });
    assert_eq!(json_form, json!({ "text": text, "usage": duration }));
    assert_eq!(
        json_of(upload("whisper", "verbose_json").await).await["task"],
        "transcribe"
    );
    assert_eq!(
        upload("whisper", "text").await.text().await.unwrap(),
        format!("{text}\n")
    );
    assert!(
        upload("whisper", "srt")
            .await
            .text()
            .await
            .unwrap()
            .contains("--> 00:00:03,000")
    );
    assert_eq!(upload("whisper", "mp3").await.status(), 400);
    let tokens = json_of(upload("transcribe", "json").await).await;
    assert_eq!(tokens["usage"]["input_token_details"]["audio_tokens"], 30);

    let body = json!({ "input": "Hello", "voice": "alloy" });
    let path = "deployments/tts/audio/speech?api-version=2025-04-01-preview";
    let wav = azure.post(path, &body).await.bytes().await.unwrap();
    assert_eq!((&wav[..4], wav.len()), (&b"RIFF"[..], 44 + 4_800));
}

#[tokio::test]
async fn files_are_kept_listed_and_deleted() {
    let azure = start(roomy()).await;
    let form = reqwest::multipart::Form::new()
        .text("purpose", "batch")
        .part(
            "file",
            reqwest::multipart::Part::bytes(b"{}\n".to_vec()).file_name("in.jsonl"),
        );
    let file = azure
        .client
        .post(azure.at("v1/files"))
        .multipart(form)
        .send()
        .await
        .unwrap();
    let file = json_of(file).await;
    assert_eq!(
        (&file["bytes"], &file["filename"]),
        (&json!(3), &json!("in.jsonl"))
    );
    let path = format!("v1/files/{}", file["id"].as_str().unwrap());
    assert_eq!(json_of(azure.get(&path).await).await, file);
    assert_eq!(
        azure
            .get(&format!("{path}/content"))
            .await
            .text()
            .await
            .unwrap(),
        "{}\n"
    );
    assert_eq!(
        json_of(azure.get("v1/files").await).await["data"],
        json!([file])
    );
    assert_eq!(
        azure
            .client
            .delete(azure.at(&path))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(azure.get(&path).await.status(), 404);
}

#[tokio::test]
async fn models_are_listed_and_found_by_name() {
    let azure = start(roomy()).await;
    let list = json_of(azure.get("models?api-version=2024-10-21").await).await;
    assert_eq!(list["data"].as_array().unwrap().len(), 6);
    assert_eq!(
        json_of(azure.get("v1/models/gpt-4o").await).await["id"],
        "gpt-4o"
    );
    assert_eq!(azure.get("v1/models/none").await.status(), 404);
}
