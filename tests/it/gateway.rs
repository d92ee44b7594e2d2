//! A gateway in this process, for one test.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use spillway::config::{Config, KeyHash};
use spillway::gateway::event::UsageEvent;
use spillway::outbox::recorder::Events;
use spillway::relay::keeper::Inbox;
use spillway::relay::realtime::Sessions;
use spillway::serve::swap::Swap;
use spillway::serve::{Gateway, Place, open_blobs, open_store};
use spillway::store::Store;
use spillway::store::blobs::Blobs;
use tokio::net::TcpListener;

/// A running gateway.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
    swap: Swap,
    events: Mutex<Events>,
}

/// Starts a gateway with this configuration.
pub(crate) async fn start(config: &str) -> Running {
    let config = read(config);
    let store = open_store(Place::Azure, &config.storage).unwrap();
    let blobs = open_blobs(Place::Azure, &config.storage).unwrap();
    start_read(&config, store, blobs).await
}

/// Starts a gateway with this configuration, whose store is `store`.
pub(crate) async fn start_with(config: &str, store: Arc<dyn Store>) -> Running {
    let config = read(config);
    let blobs = open_blobs(Place::Azure, &config.storage).unwrap();
    start_read(&config, Some(store), blobs).await
}

/// Starts a gateway with this configuration, whose blobs are `blobs`.
pub(crate) async fn start_over(config: &str, blobs: Arc<dyn Blobs>) -> Running {
    start_read(&read(config), None, Some(blobs)).await
}

/// Starts a gateway with a configuration that no file could say.
pub(crate) async fn start_changed(config: &str, change: impl FnOnce(&mut Config)) -> Running {
    let mut config = read(config);
    change(&mut config);
    start_read(&config, None, None).await
}

fn read(config: &str) -> Config {
    Config::parse(config, "test", &|_| None).unwrap_or_else(|e| panic!("{e}"))
}

/// Starts a gateway that is reached by WebSocket too, with this configuration. Its sessions.
pub(crate) async fn start_realtime(config: &str) -> (Running, Arc<Sessions>) {
    let config = read(config);
    let (gateway, inbox) = Gateway::new(&config, None).unwrap();
    let gateway = gateway.with_realtime();
    let sessions = gateway.sessions().unwrap();
    (serve(gateway, inbox, None).await, sessions)
}

async fn start_read(
    config: &Config,
    store: Option<Arc<dyn Store>>,
    blobs: Option<Arc<dyn Blobs>>,
) -> Running {
    let (mut gateway, inbox) = Gateway::new(config, store.clone()).unwrap();
    if let Some(blobs) = blobs {
        gateway = gateway.with_blobs(config, &blobs, store.as_ref());
    }
    serve(gateway, inbox, store).await
}

async fn serve(gateway: Gateway, inbox: Inbox, store: Option<Arc<dyn Store>>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let swap = gateway.swap();
    tokio::spawn(gateway.serve(listener));
    if let Some(store) = store {
        tokio::spawn(async move { inbox.owners.keep(store.as_ref()).await });
    }
    Running {
        address,
        client: Client::new(),
        swap,
        events: Mutex::new(inbox.events),
    }
}

/// A backend's section, with one deployment of `gpt-4o`.
pub(crate) fn backend(name: &str, address: SocketAddr, kind: &str, more: &str) -> String {
    format!(
        "[[backend]]\nname = \"{name}\"\nendpoint = \"http://{address}\"\nregion = \"region-of-{name}\"\n\
         [[backend.deployment]]\nname = \"gpt-4o\"\nkind = \"{kind}\"\n{more}\n"
    )
}

/// An app's section; its key is `NAME-key`.
pub(crate) fn app(name: &str, more: &str) -> String {
    let hash = KeyHash::of(&format!("{name}-key"));
    format!("[[app]]\nname = \"{name}\"\nkey_hashes = [\"{hash}\"]\n{more}\n")
}

/// No keys needed.
pub(crate) const OPEN: &str = "[auth]\nmode = \"off\"\n";

impl Running {
    /// Has it go by another configuration from now on.
    pub(crate) fn swap(&self, config: &str) {
        self.swap.to(&read(config)).unwrap();
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("http://{}{path}", self.address))
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("http://{}{path}", self.address))
    }

    pub(crate) fn chat(&self) -> RequestBuilder {
        self.post("/v1/chat/completions").json(&chat_body(false))
    }

    pub(crate) fn stream(&self) -> RequestBuilder {
        self.post("/v1/chat/completions").json(&chat_body(true))
    }

    /// The next usage event.
    pub(crate) async fn event(&self) -> UsageEvent {
        for _ in 0..1000 {
            if let Some(event) = self.events.lock().unwrap().try_next() {
                return *event;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("no usage event within 10 s");
    }

    /// The next `count` usage events.
    pub(crate) async fn events(&self, count: usize) -> Vec<UsageEvent> {
        let mut events = Vec::new();
        for _ in 0..count {
            events.push(self.event().await);
        }
        events
    }

    /// The backends that answer `count` chat calls one after the other.
    pub(crate) async fn backends(&self, count: usize) -> Vec<String> {
        let mut backends = Vec::new();
        for _ in 0..count {
            let answer = self.chat().send().await.unwrap();
            assert_eq!(answer.status(), 200);
            backends.push(header(&answer, "x-spillway-backend"));
        }
        backends
    }
}

pub(crate) fn chat_body(stream: bool) -> Value {
    json!({"model": "gpt-4o", "stream": stream, "messages": [{"role": "user", "content": "Hello"}]})
}

pub(crate) fn header(answer: &reqwest::Response, name: &str) -> String {
    let value = answer.headers().get(name);
    value.map_or_else(String::new, |v| v.to_str().unwrap().to_owned())
}
