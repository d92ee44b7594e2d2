//! A double of the Functions host, as far as a handler can tell: it starts the handler of a packaged
//! app, passes calls on to it, invokes its triggers, counts its crashes and kills it.
//!
//! What it does is what azure-functions-host does; the fixtures in tests/fixtures/functions-host are
//! the form. It reads the package's own host.json and function.json, so that what is deployed is what
//! is tested. Times are parameters where the real ones are minutes.

mod broker;
mod proxy;
mod trigger;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) use self::broker::{Delivered, Queue, Stream};
pub(crate) use self::trigger::Outcome;
use crate::process::free_port;

/// Crashes within `CRASH_WINDOW` after which the host gives up and stops itself
/// (HttpFunctionInvocationDispatcher).
const CRASHES: usize = 3;

/// A crash that is older than this when the next one comes does not count any more.
const CRASH_WINDOW: Duration = Duration::from_mins(30);

/// How often the host asks whether the handler is there, and for how long at most.
const PROBE: Duration = Duration::from_millis(25);
const INITIALIZATION: Duration = Duration::from_secs(30);

/// The times of a host, which tests shorten.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Longest that an invocation takes; then the handler is killed, with all that it is doing.
    pub(crate) function_timeout: Duration,
    /// Longest silence of a proxied call (YARP's ActivityTimeout).
    pub(crate) activity_timeout: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            function_timeout: Duration::from_mins(30),
            activity_timeout: Duration::from_secs(240),
        }
    }
}

/// A function of the app: its name and its bindings.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) bindings: Vec<Value>,
}

impl Function {
    fn trigger(&self) -> &Value {
        let is_trigger = |binding: &&Value| text(binding, "type").ends_with("Trigger");
        self.bindings.iter().find(is_trigger).unwrap()
    }

    /// The route of an HTTP function that is proxied: exactly one httpTrigger and one http output.
    fn route(&self) -> Option<&str> {
        let types: Vec<&str> = self.bindings.iter().map(|b| text(b, "type")).collect();
        (types == ["httpTrigger", "http"]).then(|| text(self.trigger(), "route"))
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// A handler, and what the host knows of it.
struct Handler {
    child: Child,
    address: SocketAddr,
}

struct State {
    handler: Option<Handler>,
    crashes: Vec<Instant>,
    starts: usize,
    stopped: bool,
}

/// The host of one app.
#[derive(Clone)]
pub(crate) struct Host(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    settings: BTreeMap<String, String>,
    times: Times,
    host_json: Value,
    functions: Vec<Function>,
    client: reqwest::Client,
    state: Mutex<State>,
}

impl Host {
    /// Starts the handler of the app in `folder`, whose app settings are `settings`, and waits for
    /// it as the host does.
    pub(crate) async fn start(folder: &Path, settings: &[(&str, &str)], times: Times) -> Self {
        let host_json = read(&folder.join("host.json"));
        let host = Self(Arc::new(Inner {
            folder: folder.to_owned(),
            settings: settings
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            times,
            functions: functions(folder),
            host_json,
            client: reqwest::Client::builder()
                .http1_only()
                .no_proxy()
                .build()
                .unwrap(),
            state: Mutex::new(State {
                handler: None,
                crashes: Vec::new(),
                starts: 0,
                stopped: false,
            }),
        }));
        host.start_handler();
        host.ready().await;
        let watched = host.clone();
        tokio::spawn(async move { watched.watch().await });
        host
    }

    /// The environment is the host's: app settings, and what it adds itself.
    fn command(&self, port: u16) -> Command {
        let handler = &self.0.host_json["customHandler"]["description"];
        let executable = self.0.folder.join(text(handler, "defaultExecutablePath"));
        let arguments = handler["arguments"].as_array().cloned().unwrap_or_default();
        let port = port.to_string();
        let mut command = Command::new(executable);
        command
            .args(arguments.iter().map(|argument| argument.as_str().unwrap()))
            .current_dir(&self.0.folder)
            .env_clear()
            .envs(&self.0.settings)
            .env("FUNCTIONS_CUSTOMHANDLER_PORT", &port)
            .env("FUNCTIONS_CUSTOMHANDLER_WORKER_ID", "worker-1")
            .env("FUNCTIONS_HTTPWORKER_PORT", &port)
            .env("FUNCTIONS_HTTPWORKER_ID", "worker-1")
            .env("FUNCTIONS_APP_ROOT_PATH", &self.0.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn start_handler(&self) {
        let port = free_port();
        let child = self.command(port).spawn().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut state = self.0.state.lock().unwrap();
        state.handler = Some(Handler { child, address });
        state.starts += 1;
    }

    /// Asks `GET /` until anything answers, or the handler has ended.
    async fn ready(&self) {
        let begun = Instant::now();
        while begun.elapsed() < INITIALIZATION && self.runs() {
            if self.answers().await {
                return;
            }
            tokio::time::sleep(PROBE).await;
        }
    }

    /// Whether the probe is answered, with anything.
    async fn answers(&self) -> bool {
        let Some(address) = self.address() else {
            return false;
        };
        let probe = self.0.client.get(format!("http://{address}/"));
        probe.timeout(Duration::from_secs(1)).send().await.is_ok()
    }

    /// Notices when the handler ends: 0 is for good, anything else is a crash, after which it is
    /// started again at once; the third within half an hour ends the host.
    async fn watch(&self) {
        loop {
            tokio::time::sleep(PROBE).await;
            let Some(status) = self.ended() else {
                if self.stopped() {
                    return;
                }
                continue;
            };
            if status.code() == Some(0) {
                return;
            }
            if self.crashed() {
                return;
            }
            self.start_handler();
            self.ready().await;
        }
    }

    fn runs(&self) -> bool {
        let mut state = self.0.state.lock().unwrap();
        let handler = state.handler.as_mut();
        handler.is_some_and(|handler| handler.child.try_wait().unwrap().is_none())
    }

    fn ended(&self) -> Option<ExitStatus> {
        let mut state = self.0.state.lock().unwrap();
        let status = state.handler.as_mut()?.child.try_wait().unwrap()?;
        state.handler = None;
        Some(status)
    }

    /// Counts a crash, and says whether it was one too many.
    fn crashed(&self) -> bool {
        let mut state = self.0.state.lock().unwrap();
        let now = Instant::now();
        let recent = |last: &Instant| now.duration_since(*last) <= CRASH_WINDOW;
        if !state.crashes.last().is_some_and(recent) {
            state.crashes.clear();
        }
        state.crashes.push(now);
        state.stopped |= state.crashes.len() >= CRASHES;
        state.stopped
    }

    /// Kills the handler, which is not told before. It counts as a crash, unless it was the host
    /// that wanted it so (an invocation's time-out).
    pub(crate) fn kill(&self) {
        if let Some(handler) = &mut self.0.state.lock().unwrap().handler {
            handler.child.kill().unwrap();
        }
    }

    /// An invocation took too long: the handler is killed and started anew.
    async fn restart(&self) {
        let handler = self.0.state.lock().unwrap().handler.take();
        if let Some(mut handler) = handler {
            handler.child.kill().unwrap();
            let status = handler.child.wait().unwrap();
            assert_eq!(status.signal(), Some(9));
        }
        self.start_handler();
        self.ready().await;
    }

    /// Where the handler listens; none while there is none.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.0
            .state
            .lock()
            .unwrap()
            .handler
            .as_ref()
            .map(|h| h.address)
    }

    /// How often a handler was started.
    pub(crate) fn starts(&self) -> usize {
        self.0.state.lock().unwrap().starts
    }

    /// Whether the host has given up.
    pub(crate) fn stopped(&self) -> bool {
        self.0.state.lock().unwrap().stopped
    }

    /// The app's functions.
    pub(crate) fn functions(&self) -> &[Function] {
        &self.0.functions
    }

    fn function(&self, name: &str) -> &Function {
        let found = self.0.functions.iter().find(|f| f.name == name);
        found.unwrap_or_else(|| panic!("the app has no function {name}"))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(handler) = &mut self.state.get_mut().unwrap().handler {
            let _ = handler.child.kill();
            let _ = handler.child.wait();
        }
    }
}

/// Each folder with a function.json directly below the app's is a function.
fn functions(folder: &Path) -> Vec<Function> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let file = entry.path().join("function.json");
        if file.is_file() {
            let bindings = read(&file)["bindings"].as_array().unwrap().clone();
            let name = entry.file_name().into_string().unwrap();
            found.push(Function { name, bindings });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn read(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}
