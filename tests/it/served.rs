//! The gateway as a process of its own: what it reads from its environment and writes to its
//! streams can't be seen from inside.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder};
use serde_json::Value;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_spillway");

/// A running gateway; it ends with the test.
pub(crate) struct Served {
    child: Child,
    address: SocketAddr,
    client: Client,
    written: Arc<Mutex<String>>,
    _folder: tempfile::TempDir,
}

/// What else there is of identity in the environment of whoever runs the tests.
const IDENTITY_VARIABLES: [&str; 8] = [
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "IDENTITY_SERVER_THUMBPRINT",
    "IMDS_ENDPOINT",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_TENANT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
];

/// The command with a clean environment but for `env`.
pub(crate) fn command(arguments: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments);
    for name in IDENTITY_VARIABLES {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG").envs(env.iter().copied());
    command
}

impl Served {
    /// Starts `spillway serve` with this configuration.
    pub(crate) async fn serve(config: &str, env: &[(&str, &str)]) -> Self {
        Self::start("serve", config, env).await
    }

    /// Starts `spillway local` with this configuration.
    pub(crate) async fn local(config: &str, env: &[(&str, &str)]) -> Self {
        Self::start("local", config, env).await
    }

    async fn start(role: &str, config: &str, env: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("spillway.toml");
        std::fs::write(&file, config).unwrap();
        let arguments = [role, "--port", "0", "--config", file.to_str().unwrap()];
        let mut child = command(&arguments, env)
            .current_dir(&folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let written = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().unwrap(), &written);
        collect(child.stderr.take().unwrap(), &written);
        let address = listening(&written).await;
        Self {
            child,
            address,
            client: Client::new(),
            written,
            _folder: folder,
        }
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("http://{}{path}", self.address))
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("http://{}{path}", self.address))
    }

    pub(crate) fn chat(&self) -> RequestBuilder {
        self.post("/v1/chat/completions")
            .json(&crate::gateway::chat_body(false))
    }

    /// What it has written to both streams.
    pub(crate) fn written(&self) -> String {
        self.written.lock().unwrap().clone()
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn terminated(mut self) -> std::process::ExitStatus {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(asked.unwrap().success());
        for _ in 0..2000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it does not end: {}", self.written());
    }

    /// Waits until it has written this.
    pub(crate) async fn writes(&self, text: &str) {
        wait_for(|| self.written().contains(text).then_some(())).await;
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(stream: impl Read + Send + 'static, written: &Arc<Mutex<String>>) {
    let written = Arc::clone(written);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut written = written.lock().unwrap();
            written.push_str(&line);
            written.push('\n');
        }
    });
}

/// The address that it says it listens on: `serve` in a log line, `local` in the console's URL.
async fn listening(written: &Mutex<String>) -> SocketAddr {
    let find = || {
        let written = written.lock().unwrap();
        written.lines().find_map(|line| {
            if let Some(rest) = line.strip_prefix("console: http://") {
                return rest.split('/').next()?.parse().ok();
            }
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "listening").then(|| line["address"].as_str()?.parse().ok())?
        })
    };
    wait_for(find).await
}

/// Looks until there is something.
pub(crate) async fn wait_for<T>(look: impl Fn() -> Option<T>) -> T {
    within(Duration::from_secs(10), look).await
}

/// Looks until it is so: for what takes many calls, or a process that starts.
pub(crate) async fn wait_long(is_so: impl Fn() -> bool) {
    within(Duration::from_secs(90), || is_so().then_some(())).await;
}

async fn within<T>(patience: Duration, look: impl Fn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            begun.elapsed() < patience,
            "waited for {patience:?} in vain"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
