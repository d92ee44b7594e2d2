//! Realtime sessions over WebSocket: between the test as a client and a backend of its own making, both of
//! which speak it by another implementation than the gateway's.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use spillway::gateway::event::{Kind, Outcome, UsageSource};
use spillway::local::simulation::{self, Latency, Limit, SimulatedBackend, SimulatedDeployment};
use spillway::relay::realtime::Sessions;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, accept_hdr_async, connect_async};

use crate::gateway::{OPEN, Running, app, header, start, start_realtime};
use crate::process::{BINARY, PATIENCE, Process, free_port};
use crate::scripted::{Act, Scripted, full};

/// What a backend of the tests has heard.
#[derive(Clone, Default)]
struct Heard {
    /// The URLs and headers that sessions were asked for with.
    asked: Arc<Mutex<Vec<(String, String)>>>,
    texts: Arc<Mutex<Vec<String>>>,
    closes: Arc<Mutex<Vec<Option<CloseFrame>>>>,
}

impl Heard {
    fn asked(&self) -> (String, String) {
        self.asked.lock().unwrap().last().cloned().unwrap()
    }

    async fn until<T>(what: &str, find: impl Fn() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = find() {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "{what} did not come");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// How the last session was closed towards the backend.
    async fn close(&self) -> Option<CloseFrame> {
        let closes = &self.closes;
        Self::until("the close", || closes.lock().unwrap().last().cloned()).await
    }

    async fn text(&self, text: &str) {
        let texts = &self.texts;
        let find = || {
            texts
                .lock()
                .unwrap()
                .iter()
                .any(|heard| heard == text)
                .then_some(())
        };
        Self::until(text, find).await;
    }
}

/// A backend with realtime deployments.
async fn talker() -> (SocketAddr, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Heard::default();
    let all = heard.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(talk(stream, all.clone()));
        }
    });
    (address, heard)
}

#[expect(clippy::result_large_err, reason = "the library's own type")]
async fn talk(stream: TcpStream, heard: Heard) {
    let note = |request: &Request, response: Response| {
        let headers = format!("{:?}", request.headers());
        let asked = (request.uri().to_string(), headers);
        heard.asked.lock().unwrap().push(asked);
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async(stream, note).await else {
        return;
    };
    let created = json!({"type": "session.created"}).to_string();
    let _ = socket.send(Message::text(created)).await;
    let mut responses = Responses::default();
    while let Some(Ok(message)) = socket.next().await {
        let text = match message {
            Message::Text(text) => text.to_string(),
            Message::Close(close) => {
                heard.closes.lock().unwrap().push(close);
                continue;
            }
            _ => continue,
        };
        heard.texts.lock().unwrap().push(text.clone());
        let event: Value = serde_json::from_str(&text).unwrap_or_default();
        let delta = json!({"type": "response.output_text.delta", "delta": "12345678"}).to_string();
        let kind = event["type"].as_str().unwrap_or_default();
        let sent = match kind {
            "response.create" => {
                let id = responses.begin();
                let _ = socket.send(Message::text(begun(&id))).await;
                socket.send(Message::text(done(&id))).await
            }
            // Goes on until it is cancelled, in the conversation or outside it.
            "begin" | "beside" => {
                let id = responses.begin();
                let _ = socket.send(Message::text(begun(&id))).await;
                match kind {
                    "begin" => responses.inside = Some(id),
                    _ => responses.beside.push(id),
                }
                socket.send(Message::text(delta)).await
            }
            "response.cancel" | "end" => {
                let text = match responses.end(event["response_id"].as_str()) {
                    Some(id) => done(&id),
                    None => json!({"type": "error"}).to_string(),
                };
                socket.send(Message::text(text)).await
            }
            "break" => {
                let _ = socket.send(Message::text(begun(&responses.begin()))).await;
                let _ = socket.send(Message::text(delta)).await;
                return;
            }
            "close" => {
                let close = CloseFrame {
                    code: 4001.into(),
                    reason: "enough".into(),
                };
                socket.close(Some(close)).await
            }
            _ => socket.send(Message::text(text)).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// The responses of a session at a backend.
#[derive(Default)]
struct Responses {
    made: u32,
    /// The one that goes on in the conversation.
    inside: Option<String>,
    /// Those that go on outside it.
    beside: Vec<String>,
}

impl Responses {
    fn begin(&mut self) -> String {
        self.made += 1;
        format!("resp_{}", self.made)
    }

    /// Ends the one that is named. Where none is, only that in the conversation is meant.
    fn end(&mut self, id: Option<&str>) -> Option<String> {
        let Some(id) = id else {
            return self.inside.take();
        };
        let place = self.beside.iter().position(|one| one == id);
        let beside = place.map(|place| self.beside.remove(place));
        beside.or_else(|| self.inside.take_if(|one| one == id))
    }
}

fn begun(id: &str) -> String {
    json!({"type": "response.created", "response": {"id": id, "usage": null}}).to_string()
}

fn done(id: &str) -> String {
    json!({"type": "response.done", "response": {"id": id, "status": "completed", "usage": {
        "total_tokens": 30, "input_tokens": 20, "output_tokens": 10,
        "input_token_details": {"text_tokens": 5, "audio_tokens": 15, "cached_tokens": 4},
        "output_token_details": {"text_tokens": 2, "audio_tokens": 8},
    }}})
    .to_string()
}

fn section(name: &str, address: SocketAddr, kind: &str) -> String {
    format!(
        "[[backend]]\nname = \"{name}\"\nendpoint = \"http://{address}\"\n[[backend.deployment]]\nname = \"gpt-realtime\"\nmodel = \"voice\"\nkind = \"{kind}\"\n"
    )
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const V1: &str = "/v1/realtime?model=voice";

/// Asks for a session, with these headers.
async fn ask(
    gateway: SocketAddr,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<(Socket, Value), Error> {
    let mut request = format!("ws://{gateway}{path}").into_client_request()?;
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let (mut socket, response) = connect_async(request).await?;
    let text = |name: &str| {
        let value = response.headers().get(name);
        value.map_or(String::new(), |value| value.to_str().unwrap().to_owned())
    };
    let said = json!({
        "backend": text("x-spillway-backend"),
        "attempts": text("x-spillway-attempts"),
        "protocol": text("sec-websocket-protocol"),
    });
    assert_eq!(event(&mut socket).await["type"], "session.created");
    Ok((socket, said))
}

async fn open(gateway: &Running, path: &str) -> Socket {
    ask(gateway.address, path, &[]).await.unwrap().0
}

/// The status and code that a session is refused with.
async fn refused(gateway: &Running, path: &str, headers: &[(&'static str, &str)]) -> (u16, String) {
    match ask(gateway.address, path, headers).await {
        Err(Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let code = body["error"]["code"].as_str().unwrap_or_default();
            (response.status().as_u16(), code.to_owned())
        }
        other => panic!("{path}: {other:?}"),
    }
}

async fn next(socket: &mut Socket) -> Message {
    let next = timeout(PATIENCE, socket.next()).await;
    next.unwrap().unwrap().unwrap()
}

/// The next event, whatever pings come before it.
async fn event(socket: &mut Socket) -> Value {
    loop {
        match next(socket).await {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn closed(socket: &mut Socket) -> (u16, String) {
    loop {
        if let Message::Close(close) = next(socket).await {
            let close = close.unwrap();
            return (close.code.into(), close.reason.to_string());
        }
    }
}

async fn say(socket: &mut Socket, kind: &str) {
    let text = json!({"type": kind}).to_string();
    socket.send(Message::text(text)).await.unwrap();
}

/// Has a response made to its end.
async fn respond(socket: &mut Socket) {
    say(socket, "response.create").await;
    assert_eq!(event(socket).await["type"], "response.created");
    assert_eq!(event(socket).await["type"], "response.done");
}

/// Has a response begun that goes on.
async fn begin(socket: &mut Socket, kind: &str) {
    say(socket, kind).await;
    assert_eq!(event(socket).await["type"], "response.created");
    assert_eq!(event(socket).await["type"], "response.output_text.delta");
}

fn cancel(id: &str) -> String {
    format!(r#"{{"type":"response.cancel","response_id":"{id}"}}"#)
}

async fn all_over(sessions: &Sessions) {
    Heard::until("the end", || (sessions.open() == 0).then_some(())).await;
}

#[tokio::test]
async fn each_response_of_a_session_is_a_usage_event() {
    let (address, heard) = talker().await;
    let config = format!("{OPEN}{}", section("a", address, "payg"));
    let (gateway, sessions) = start_realtime(&config).await;
    let (mut socket, said) = ask(gateway.address, V1, &[]).await.unwrap();
    assert_eq!(
        (&said["backend"], &said["attempts"]),
        (&json!("a"), &json!("1"))
    );
    assert_eq!(sessions.open(), 1);
    let metrics = gateway.get("/spillway/metrics").send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(
        metrics.contains("spillway_realtime_sessions 1"),
        "{metrics}"
    );
    for _ in 0..2 {
        respond(&mut socket).await;
        let event = gateway.event().await;
        let tokens = event.tokens;
        assert_eq!((tokens.input, tokens.output, tokens.cached), (20, 10, 4));
        assert_eq!((tokens.audio_input, tokens.audio_output), (15, 8));
        assert_eq!(
            (event.usage, event.outcome),
            (UsageSource::Reported, Outcome::Completed)
        );
        assert_eq!((&*event.model, &*event.operation), ("voice", "realtime"));
        assert_eq!((&*event.backend, &*event.deployment), ("a", "gpt-realtime"));
        assert_eq!((event.status, event.kind), (200, Some(Kind::Payg)));
        assert_eq!(event.attempts.len(), 1);
    }
    socket.close(None).await.unwrap();
    all_over(&sessions).await;
    let (url, _) = heard.asked();
    assert_eq!(url, "/openai/v1/realtime?model=gpt-realtime");
    let mut quiet = open(&gateway, V1).await;
    quiet.close(None).await.unwrap();
    let event = gateway.event().await;
    assert_eq!(
        (event.status, event.usage),
        (101, UsageSource::None),
        "one without a response"
    );
}

#[tokio::test]
async fn messages_pass_as_they_are() {
    let (address, _) = talker().await;
    let config = format!("{OPEN}{}", section("a", address, "payg"));
    let (gateway, _) = start_realtime(&config).await;
    let mut socket = open(&gateway, V1).await;
    for length in [0, 1, 125, 126, 65_535, 65_536, 3_000_000] {
        let text = format!("\"{}\"", "é".repeat(length / 2));
        socket.send(Message::text(text.clone())).await.unwrap();
        match next(&mut socket).await {
            Message::Text(echo) => assert!(echo.as_str() == text, "{length}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_classic_form_goes_on_as_it_is() {
    let (address, heard) = talker().await;
    let config = format!("{OPEN}{}", section("a", address, "payg"));
    let (gateway, _) = start_realtime(&config).await;
    let path = "/openai/realtime?api-version=2025-04-01-preview&deployment=voice";
    respond(&mut open(&gateway, path).await).await;
    let (url, _) = heard.asked();
    assert_eq!(
        url,
        "/openai/realtime?api-version=2025-04-01-preview&deployment=gpt-realtime"
    );
}

#[tokio::test]
async fn a_deployment_that_is_full_is_passed_over() {
    let (address, _) = talker().await;
    let ptu = Scripted::start(vec![full(60_000)]).await;
    let config = format!(
        "{OPEN}{}{}",
        section("ptu", ptu.address, "ptu"),
        section("payg", address, "payg")
    );
    let (gateway, _) = start_realtime(&config).await;
    for attempts in ["2", "1"] {
        let (mut socket, said) = ask(gateway.address, V1, &[]).await.unwrap();
        assert_eq!(
            (&said["backend"], &said["attempts"]),
            (&json!("payg"), &json!(attempts))
        );
        respond(&mut socket).await;
        assert!(gateway.event().await.spilled);
    }
    assert_eq!(ptu.calls(), 1, "it is marked");
    let only = format!(
        "{OPEN}[gateway]\nwait_budget_ms = 0\n{}",
        section("ptu", ptu.address, "ptu")
    );
    let (gateway, _) = start_realtime(&only).await;
    let why = refused(&gateway, V1, &[]).await;
    assert_eq!(why, (429, "all_deployments_full".to_owned()));
    assert_eq!(gateway.event().await.status, 429);
}

#[tokio::test]
async fn a_key_is_taken_where_browsers_can_put_it_and_goes_no_further() {
    let (address, heard) = talker().await;
    let config = section("a", address, "payg") + &app("portal", "");
    let (gateway, _) = start_realtime(&config).await;
    let offered = "realtime, openai-insecure-api-key.portal-key";
    let shown: [(&str, &[(&'static str, &str)]); 4] = [
        (V1, &[("api-key", "portal-key")]),
        (V1, &[("authorization", "Bearer portal-key")]),
        ("/v1/realtime?model=voice&api-key=portal-key", &[]),
        (V1, &[("sec-websocket-protocol", offered)]),
    ];
    for (path, headers) in shown {
        let (mut socket, said) = ask(gateway.address, path, headers).await.unwrap();
        let wants = headers.iter().any(|(name, _)| name.ends_with("protocol"));
        assert_eq!(said["protocol"], if wants { "realtime" } else { "" });
        respond(&mut socket).await;
        assert_eq!(&*gateway.event().await.app, "portal");
        let (url, sent) = heard.asked();
        assert!(
            !url.contains("portal-key") && !sent.contains("portal-key"),
            "{url} {sent}"
        );
        assert!(!sent.contains("sec-websocket-extensions"), "{sent}");
    }
    let wrong = [("api-key", "wrong")];
    assert_eq!(refused(&gateway, V1, &wrong).await.0, 401);
    assert_eq!(refused(&gateway, V1, &[]).await.0, 401);
}

#[tokio::test]
async fn both_ends_hear_how_the_other_closed() {
    let (address, heard) = talker().await;
    let config = format!("{OPEN}{}", section("a", address, "payg"));
    let (gateway, sessions) = start_realtime(&config).await;
    let mut socket = open(&gateway, V1).await;
    let close = CloseFrame {
        code: 4000.into(),
        reason: "bye".into(),
    };
    socket.close(Some(close.clone())).await.unwrap();
    assert_eq!(heard.close().await, Some(close));
    let mut socket = open(&gateway, V1).await;
    say(&mut socket, "close").await;
    assert_eq!(closed(&mut socket).await, (4001, "enough".to_owned()));
    drop(socket);
    all_over(&sessions).await;
}

#[tokio::test]
async fn what_a_response_used_whose_client_left_is_known_all_the_same() {
    let (address, heard) = talker().await;
    let config = format!("{OPEN}{}", section("a", address, "payg"));
    let (gateway, sessions) = start_realtime(&config).await;
    for way in ["with a goodbye", "without", "in the middle of a message"] {
        let mut socket = open(&gateway, V1).await;
        say(&mut socket, "begin").await;
        assert_eq!(event(&mut socket).await["type"], "response.created");
        match way {
            "with a goodbye" => socket.close(None).await.unwrap(),
            "without" => {}
            _ => {
                let part = Frame::message("{", OpCode::Data(Data::Text), false);
                socket.send(Message::Frame(part)).await.unwrap();
            }
        }
        drop(socket);
        let event = gateway.event().await;
        assert_eq!(
            (event.tokens.total(), event.usage),
            (30, UsageSource::Reported),
            "{way}"
        );
        heard.text(&cancel("resp_1")).await;
        heard.texts.lock().unwrap().clear();
        all_over(&sessions).await;
    }
}

/// Responses outside the conversation run beside each other, and end when they are named only.
#[tokio::test]
async fn a_response_is_not_over_because_another_one_is() {
    let (address, heard) = talker().await;
    let config = format!("{OPEN}{}", section("a", address, "payg"));
    let (gateway, sessions) = start_realtime(&config).await;
    for says_goodbye in [true, false] {
        let mut socket = open(&gateway, V1).await;
        for kind in ["begin", "beside", "beside"] {
            begin(&mut socket, kind).await;
        }
        respond(&mut socket).await;
        assert_eq!(gateway.event().await.tokens.total(), 30);
        if says_goodbye {
            socket.close(None).await.unwrap();
        }
        drop(socket);
        for event in gateway.events(3).await {
            assert_eq!(
                (event.tokens.total(), event.usage),
                (30, UsageSource::Reported),
                "each that was under way"
            );
        }
        for id in ["resp_1", "resp_2", "resp_3"] {
            heard.text(&cancel(id)).await;
        }
        heard.texts.lock().unwrap().clear();
        all_over(&sessions).await;
    }
}

#[tokio::test]
async fn each_response_that_a_backend_breaks_off_is_an_event_and_a_request() {
    let (address, _) = talker().await;
    let limited = app("portal", "requests_per_minute = 2");
    let config = section("a", address, "payg") + &limited;
    let (gateway, sessions) = start_realtime(&config).await;
    let key = [("api-key", "portal-key")];
    let (mut socket, _) = ask(gateway.address, V1, &key).await.unwrap();
    begin(&mut socket, "beside").await;
    say(&mut socket, "break").await;
    assert_eq!(closed(&mut socket).await.0, 1011);
    let events = gateway.events(2).await;
    for event in &events {
        assert_eq!(
            (event.outcome, event.usage, event.status),
            (Outcome::Cut, UsageSource::Estimated, 200)
        );
    }
    let output: u64 = events.iter().map(|event| event.tokens.output).sum();
    assert_eq!(output, 4, "sixteen bytes of text");
    drop(socket);
    all_over(&sessions).await;
    assert_eq!(refused(&gateway, V1, &key).await.0, 429);
}

#[tokio::test]
async fn a_backend_that_breaks_off_is_charged_for_as_estimated() {
    let (address, _) = talker().await;
    let config = format!("{OPEN}{}", section("a", address, "payg"));
    let (gateway, sessions) = start_realtime(&config).await;
    let mut socket = open(&gateway, V1).await;
    say(&mut socket, "break").await;
    assert_eq!(closed(&mut socket).await.0, 1011);
    let event = gateway.event().await;
    assert_eq!(
        (event.outcome, event.usage),
        (Outcome::Cut, UsageSource::Estimated)
    );
    assert_eq!(event.tokens.output, 2, "eight bytes of text");
    drop(socket);
    all_over(&sessions).await;
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_the_session() {
    let (address, heard) = talker().await;
    let config = format!(
        "{OPEN}[gateway]\nmax_body_mb = 1\n{}",
        section("a", address, "payg")
    );
    let (gateway, _) = start_realtime(&config).await;
    let mut socket = open(&gateway, V1).await;
    // It may be told while it still sends.
    let _ = socket.send(Message::text("x".repeat((1 << 20) + 1))).await;
    assert_eq!(closed(&mut socket).await.0, 1009);
    assert_eq!(heard.texts.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn an_app_at_its_limit_has_no_further_response() {
    let (address, _) = talker().await;
    for limit in ["requests_per_minute = 2", "tokens_per_minute = 25"] {
        let config = section("a", address, "payg") + &app("portal", limit);
        let (gateway, sessions) = start_realtime(&config).await;
        let key = [("api-key", "portal-key")];
        let (mut socket, _) = ask(gateway.address, V1, &key).await.unwrap();
        respond(&mut socket).await;
        let why = if limit.starts_with("requests") {
            respond(&mut socket).await;
            gateway.event().await;
            closed(&mut socket).await
        } else {
            closed(&mut socket).await
        };
        assert_eq!(
            why,
            (1008, "a limit of the app is reached".to_owned()),
            "{limit}"
        );
        assert_eq!(gateway.event().await.tokens.total(), 30);
        drop(socket);
        all_over(&sessions).await;
        assert_eq!(refused(&gateway, V1, &key).await.0, 429, "{limit}");
    }
}

#[tokio::test]
async fn what_is_no_session_is_refused_in_plain_words() {
    let (address, _) = talker().await;
    let not_found = Scripted::start(vec![Act::Say(
        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}".to_vec(),
    )])
    .await;
    let config = format!(
        "{OPEN}[gateway]\nmax_realtime_sessions = 1\n{}[[backend]]\nname = \"b\"\nendpoint = \"http://{}\"\n[[backend.deployment]]\nname = \"chat\"\nkind = \"payg\"\n",
        section("a", address, "payg"),
        not_found.address
    );
    let (gateway, sessions) = start_realtime(&config).await;
    let code = |code: &str| code.to_owned();
    let missing = refused(&gateway, "/v1/realtime", &[]).await;
    assert_eq!(missing, (400, code("model_missing")));
    let unknown = refused(&gateway, "/v1/realtime?model=other", &[]).await;
    assert_eq!(unknown, (404, code("model_not_found")));
    let chat = refused(&gateway, "/v1/realtime?model=chat", &[]).await;
    assert_eq!(chat.0, 400, "as the backend says it");
    let plain = gateway.get(V1).send().await.unwrap();
    assert_eq!(plain.status(), 426);
    let socket = open(&gateway, V1).await;
    let second = refused(&gateway, V1, &[]).await;
    assert_eq!(second, (503, code("too_many_sessions")));
    drop(socket);
    all_over(&sessions).await;
    open(&gateway, V1).await;
}

#[tokio::test]
async fn behind_a_host_that_switches_no_protocols_there_are_no_sessions() {
    let (address, heard) = talker().await;
    let gateway = start(&format!("{OPEN}{}", section("a", address, "payg"))).await;
    let why = refused(&gateway, V1, &[]).await;
    assert_eq!(why, (501, "realtime_not_available".to_owned()));
    let plain = gateway.get(V1).send().await.unwrap();
    assert_eq!(
        (plain.status().as_u16(), header(&plain, "content-type")),
        (501, "application/json".to_owned())
    );
    assert!(heard.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_gateway_that_ends_lets_the_response_under_way_end_first() {
    let (address, _) = talker().await;
    let config = format!("{OPEN}{}", section("a", address, "payg"));
    let (gateway, sessions) = start_realtime(&config).await;
    let mut idle = open(&gateway, V1).await;
    let mut busy = open(&gateway, V1).await;
    say(&mut busy, "begin").await;
    assert_eq!(event(&mut busy).await["type"], "response.created");
    sessions.end();
    assert_eq!(
        closed(&mut idle).await,
        (1001, "the gateway ends".to_owned())
    );
    say(&mut busy, "end").await;
    assert_eq!(event(&mut busy).await["type"], "response.output_text.delta");
    assert_eq!(event(&mut busy).await["type"], "response.done");
    assert_eq!(closed(&mut busy).await.0, 1001);
    drop((idle, busy));
    all_over(&sessions).await;
}

#[tokio::test]
async fn a_process_that_is_asked_to_end_lets_the_response_under_way_end_first() {
    let (backend, _) = talker().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spillway.toml");
    let config = format!("{OPEN}{}", section("a", backend, "payg"));
    std::fs::write(&file, config).unwrap();
    let port = free_port();
    let mut command = Command::new(BINARY);
    let arguments = ["serve", "--port", &port.to_string(), "--config"];
    command.args(arguments).arg(&file).stdout(Stdio::null());
    let process = Process::start(command, port);
    let mut busy = ask(process.address, V1, &[]).await.unwrap().0;
    say(&mut busy, "begin").await;
    assert_eq!(event(&mut busy).await["type"], "response.created");
    process.terminate();
    while TcpStream::connect(process.address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    say(&mut busy, "end").await;
    assert_eq!(event(&mut busy).await["type"], "response.output_text.delta");
    assert_eq!(event(&mut busy).await["type"], "response.done");
    assert_eq!(closed(&mut busy).await.0, 1001);
    drop(busy);
    assert!(process.wait().success());
}

#[tokio::test]
async fn a_silent_client_is_asked_for_a_sign_of_life_and_given_up() {
    let (address, _) = talker().await;
    let times = "[gateway]\nheartbeat_ms = 50\nidle_timeout_ms = 1000\n";
    let config = format!("{OPEN}{times}{}", section("a", address, "payg"));
    let (gateway, sessions) = start_realtime(&config).await;
    let mut alive = open(&gateway, V1).await;
    let mut pings = 0;
    while pings < 40 {
        match next(&mut alive).await {
            Message::Ping(_) => pings += 1,
            // The backend's answer to a ping of its own.
            Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sessions.open(), 1, "it answers, and so does the backend");
    // It is not read from, so that no ping is answered.
    all_over(&sessions).await;
}

#[tokio::test]
async fn the_simulation_holds_a_conversation() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = simulation::router(SimulatedBackend {
        name: "sim".into(),
        region: "nowhere".into(),
        key: None,
        deployments: vec![SimulatedDeployment {
            name: "gpt-realtime".into(),
            model: "gpt-realtime".into(),
            limit: Limit::Payg {
                tokens_per_minute: 100_000,
                requests_per_minute: 1000,
            },
        }],
        latency: Latency::default(),
    });
    tokio::spawn(simulation::serve(listener, router));
    let config = format!("{OPEN}{}", section("a", address, "payg"));
    let (gateway, _) = start_realtime(&config).await;
    let mut socket = open(&gateway, V1).await;
    let audio = "A".repeat(64_000);
    for event in [
        json!({"type": "input_audio_buffer.append", "audio": audio}),
        json!({"type": "conversation.item.create", "item": {"content": [{"type": "input_text", "text": "Hello there"}]}}),
        json!({"type": "response.create"}),
    ] {
        socket.send(Message::text(event.to_string())).await.unwrap();
    }
    let mut kinds = Vec::new();
    while kinds.last().is_none_or(|kind| kind != "response.done") {
        kinds.push(
            event(&mut socket).await["type"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    assert!(
        kinds
            .iter()
            .any(|kind| kind == "response.output_audio.delta"),
        "{kinds:?}"
    );
    let event = gateway.event().await;
    // 48,000 bytes are a second of sound.
    assert_eq!((event.tokens.audio_input, event.tokens.input), (10, 12));
    assert!(event.tokens.audio_output > 0 && event.tokens.output > event.tokens.audio_output);
}
